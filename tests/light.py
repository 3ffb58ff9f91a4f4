"""A detector that takes a millisecond instead of a second of a core, for tests of everything around the detector.

It is a real model of the real server, with the interface of the network and far less arithmetic: the boxes of the two
coarsest feature maps are a linear function of the mean colours of 5 x 5 tiles. So every image has detections of its
own, the same pixels have the same, and a person that fills the image is always among them.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

from ssd_triton.detector.network.boxes import NUM_DEFAULT_BOXES

NUM_LABELS = 81
NUM_BOXES = 40
"""The last default boxes: four each of the map of 3 x 3 cells and of the map of one cell."""
TILES = 5
TILE_PX = 60
BACKGROUND_LOGIT = 6.0


def light_model() -> ModelProto:
    """``image`` UINT8 [N, 300, 300, 3] -> ``loc`` FP32 [N, 4, 8732], ``conf`` FP32 [N, 81, 8732]."""
    rng = np.random.default_rng(0)
    features = TILES * TILES * 3
    person = rng.uniform(2.0, 5.5, NUM_BOXES)
    person[-NUM_BOXES // 10] = 9.0  # the square that nearly fills the image
    background = np.zeros((1, NUM_LABELS, NUM_DEFAULT_BOXES))
    background[:, 0] = BACKGROUND_LOGIT
    elsewhere = [NUM_DEFAULT_BOXES - NUM_BOXES]
    constants: dict[str, np.ndarray] = {
        "scale": np.array(1 / 255, np.float32),
        "loc_weights": rng.normal(0, 0.3, (features, 4 * NUM_BOXES)).astype(np.float32),
        "loc_shape": np.array([-1, 4, NUM_BOXES]),
        "loc_pads": np.array([0, 0, *elsewhere, 0, 0, 0]),
        "person_weights": rng.normal(0, 0.3, (features, NUM_BOXES)).astype(np.float32),
        "person_bias": person.astype(np.float32),
        "person_shape": np.array([-1, 1, NUM_BOXES]),
        "person_pads": np.array([0, 1, *elsewhere, 0, NUM_LABELS - 2, 0]),
        "background": background.astype(np.float32),
        "centre": np.array(0.5, np.float32),
    }
    nodes = [
        helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["pixels"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("AveragePool", ["planes"], ["tiles"], kernel_shape=[TILE_PX] * 2, strides=[TILE_PX] * 2),
        helper.make_node("Flatten", ["tiles"], ["flat"]),
        helper.make_node("Mul", ["flat", "scale"], ["scaled"]),
        helper.make_node("Sub", ["scaled", "centre"], ["colours"]),
        helper.make_node("MatMul", ["colours", "loc_weights"], ["loc_values"]),
        helper.make_node("Reshape", ["loc_values", "loc_shape"], ["loc_boxes"]),
        helper.make_node("Pad", ["loc_boxes", "loc_pads"], ["loc"]),
        helper.make_node("Gemm", ["colours", "person_weights", "person_bias"], ["person_values"]),
        helper.make_node("Reshape", ["person_values", "person_shape"], ["person_boxes"]),
        helper.make_node("Pad", ["person_boxes", "person_pads"], ["person"]),
        helper.make_node("Add", ["person", "background"], ["conf"]),
    ]
    outputs = {"loc": 4, "conf": NUM_LABELS}
    graph = helper.make_graph(
        nodes,
        "light",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", 300, 300, 3])],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", rows, NUM_DEFAULT_BOXES])
            for name, rows in outputs.items()
        ],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def copy_repository(repository: Path, target: Path) -> Path:
    """The same models and artefacts, as links: a file to change is to be unlinked first."""
    shutil.copytree(repository, target, copy_function=os.link)
    return target


def write_light_repository(repository: Path, target: Path) -> Path:
    """A copy of the model repository whose ``onnx_fp32`` is the light detector; everything else is as it was."""
    copy_repository(repository, target)
    artefact = target / "ssd_detector/1/onnx_fp32.onnx"
    artefact.unlink()
    artefact.write_bytes(light_model().SerializeToString())
    artefact.with_name("onnx_fp32.onnx.json").unlink(missing_ok=True)
    return target
