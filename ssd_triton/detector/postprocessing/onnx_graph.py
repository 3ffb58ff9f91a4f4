"""The post-processing as an ONNX graph of standard operators: it runs wherever ONNX Runtime does.

The graph follows :func:`ssd_triton.detector.postprocessing.reference.postprocess` and is checked against it. Per-class
candidate lists become the batch dimension of NonMaxSuppression, so that one operator call serves all images and
classes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ssd_triton.common.arrays import AnyArray
from ssd_triton.common.files import atomic_output
from ssd_triton.detector.export.compare import check_interface, run_onnx
from ssd_triton.detector.export.detector import MAX_IR_VERSION, OPSET
from ssd_triton.detector.network.boxes import CENTER_VARIANCE, NUM_DEFAULT_BOXES, SIZE_VARIANCE, default_boxes_cxcywh
from ssd_triton.detector.postprocessing.check import check_detections
from ssd_triton.detector.postprocessing.parameters import PostprocessParameters


class _GraphBuilder:
    """Collects nodes and constants; an operator is called like a function and returns its output's name."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def op(self, operator: str, *inputs: str, name: str | None = None, **attributes: Any) -> str:
        return self.ops(operator, *inputs, names=[name], **attributes)[0]

    def ops(self, operator: str, *inputs: str, names: list[str | None], **attributes: Any) -> list[str]:
        node_name = f"{operator}_{len(self.nodes)}"
        outputs = [name or f"{node_name}_{index}" for index, name in enumerate(names)]
        self.nodes.append(helper.make_node(operator, list(inputs), outputs, node_name, **attributes))
        return outputs

    def constant(self, value: AnyArray | list[int]) -> str:
        array = np.array(value, np.int64) if isinstance(value, list) else value
        self.constants.append(numpy_helper.from_array(array, f"constant_{len(self.constants)}"))
        name: str = self.constants[-1].name
        return name


def export_postprocess(path: Path, num_labels: int, parameters: PostprocessParameters) -> None:
    """Write the post-processing graph, and prove it equal to the NumPy reference.

    Raises:
        ExportError: The graph's interface or its detections differ from the reference.
    """
    with atomic_output(path) as temporary:
        onnx.save_model(build_postprocess(num_labels, parameters), temporary)
        n = parameters.detections_per_img
        check_interface(
            temporary,
            inputs={
                "loc": (np.dtype(np.float32), (None, 4, NUM_DEFAULT_BOXES)),
                "conf": (np.dtype(np.float32), (None, num_labels, NUM_DEFAULT_BOXES)),
                "original_size": (np.dtype(np.int32), (None, 2)),
            },
            outputs={
                "num_detections": (np.dtype(np.int32), (None, 1)),
                "detection_boxes": (np.dtype(np.float32), (None, n, 4)),
                "detection_scores": (np.dtype(np.float32), (None, n)),
                "detection_classes": (np.dtype(np.int32), (None, n)),
            },
        )
        check_detections(lambda inputs: run_onnx(temporary, inputs), num_labels, parameters)


def build_postprocess(num_labels: int, parameters: PostprocessParameters) -> onnx.ModelProto:
    """Build the graph, from raw predictions to padded detections.

    Inputs: ``loc`` [N, 4, 8732], ``conf`` [N, num_labels, 8732] and ``original_size`` INT32 [N, 2], which is (width,
    height) in pixels. Outputs: ``num_detections`` INT32 [N, 1], and with K = ``detections_per_img`` ``detection_boxes``
    FP32 [N, K, 4] (xyxy, pixels), ``detection_scores`` FP32 [N, K], ``detection_classes`` INT32 [N, K]; zeros beyond
    ``num_detections``.
    """
    g = _GraphBuilder()
    boxes = _decode(g)
    scores, candidates_xyxy = _candidates(g, boxes, num_labels, parameters)
    kept_scores = _suppress(g, scores, candidates_xyxy, num_labels, parameters)
    _select(g, kept_scores, candidates_xyxy, num_labels, parameters)
    return _model(g, num_labels, parameters)


def _decode(g: _GraphBuilder) -> str:
    """``loc`` [N, 4, 8732] -> boxes [N, 8732, 4], xyxy, fractions of the image."""
    defaults = default_boxes_cxcywh()
    offsets = g.op("Transpose", "loc", perm=[0, 2, 1])
    center_offset, size_offset = g.ops("Split", offsets, names=[None, None], axis=2, num_outputs=2)
    moved = g.op("Mul", center_offset, g.constant(np.float32(CENTER_VARIANCE) * defaults[:, 2:]))
    center = g.op("Add", moved, g.constant(defaults[:, :2]))
    growth = g.op("Exp", g.op("Mul", size_offset, g.constant(np.array(SIZE_VARIANCE, np.float32))))
    half_size = g.op("Mul", growth, g.constant(defaults[:, 2:] / 2))
    return g.op("Concat", g.op("Sub", center, half_size), g.op("Add", center, half_size), axis=2)


def _candidates(g: _GraphBuilder, boxes: str, num_labels: int, parameters: PostprocessParameters) -> tuple[str, str]:
    """The best boxes of each class: scores [N * classes, k] and boxes [N * classes, k, 4].

    TopK puts the lower index first among equal scores, as the reference's stable sort does.
    """
    classes, k = num_labels - 1, parameters.topk_candidates
    probabilities = g.op("Softmax", "conf", axis=1)
    foreground = g.op("Slice", probabilities, g.constant([1]), g.constant([num_labels]), g.constant([1]))
    scores, indices = g.ops("TopK", foreground, g.constant([k]), names=[None, None], axis=2)
    indices = g.op("Reshape", indices, g.constant([0, classes * k, 1]))
    gathered = g.op("GatherND", boxes, indices, batch_dims=1)
    return g.op("Reshape", scores, g.constant([-1, k])), g.op("Reshape", gathered, g.constant([-1, k, 4]))


def _suppress(
    g: _GraphBuilder, scores: str, candidates_xyxy: str, num_labels: int, parameters: PostprocessParameters
) -> str:
    """Scores [N, classes * k] in which every suppressed candidate, and every one below the threshold, is 0.

    The operator suppresses at IoU > threshold and the protocol at IoU >= threshold: hence the next smaller number.
    It reads boxes as y, x, y, x; exchanging the axes of all boxes leaves every IoU as it is.
    """
    k = parameters.topk_candidates
    just_below = np.nextafter(np.float32(parameters.nms_thresh), np.float32(0))
    selected = g.op(
        "NonMaxSuppression",
        candidates_xyxy,
        g.op("Unsqueeze", scores, g.constant([1])),
        g.constant([k]),
        g.constant(np.array([just_below], np.float32)),
        g.constant(np.array([parameters.score_thresh], np.float32)),
    )
    row_and_candidate = g.op("Gather", selected, g.constant([0, 2]), axis=1)
    kept_scores = g.op("GatherND", scores, row_and_candidate)
    zeros = g.op("ConstantOfShape", g.op("Shape", scores))
    kept = g.op("ScatterND", zeros, row_and_candidate, kept_scores)
    return g.op("Reshape", kept, g.constant([-1, (num_labels - 1) * k]))


def _select(
    g: _GraphBuilder,
    kept_scores: str,
    candidates_xyxy: str,
    num_labels: int,
    parameters: PostprocessParameters,
) -> None:
    """The best detections over all classes, in pixels; what is left over is zeros."""
    k = parameters.topk_candidates
    scores, indices = g.ops(
        "TopK",
        kept_scores,
        g.constant([parameters.detections_per_img]),
        names=["detection_scores", None],
        axis=1,
    )
    found = g.op("Greater", scores, g.constant(np.array(0, np.float32)))
    found_int = g.op("Cast", found, to=TensorProto.INT32)
    g.op("ReduceSum", found_int, g.constant([1]), name="num_detections", keepdims=1)
    class_ids = g.op("Add", g.op("Div", indices, g.constant(np.array(k))), g.constant(np.array(1)))
    g.op("Mul", g.op("Cast", class_ids, to=TensorProto.INT32), found_int, name="detection_classes")
    per_image = g.op("Reshape", candidates_xyxy, g.constant([-1, (num_labels - 1) * k, 4]))
    boxes = g.op("GatherND", per_image, g.op("Unsqueeze", indices, g.constant([2])), batch_dims=1)
    size = g.op("Cast", "original_size", to=TensorProto.FLOAT)
    to_pixels = g.op("Unsqueeze", g.op("Concat", size, size, axis=1), g.constant([1]))
    mask = g.op("Unsqueeze", g.op("Cast", found, to=TensorProto.FLOAT), g.constant([2]))
    g.op("Mul", g.op("Mul", boxes, to_pixels), mask, name="detection_boxes")


def _model(g: _GraphBuilder, num_labels: int, parameters: PostprocessParameters) -> onnx.ModelProto:
    n = parameters.detections_per_img
    graph = helper.make_graph(
        g.nodes,
        "ssd_postprocess",
        inputs=[
            helper.make_tensor_value_info("loc", TensorProto.FLOAT, ["batch", 4, NUM_DEFAULT_BOXES]),
            helper.make_tensor_value_info("conf", TensorProto.FLOAT, ["batch", num_labels, NUM_DEFAULT_BOXES]),
            helper.make_tensor_value_info("original_size", TensorProto.INT32, ["batch", 2]),
        ],
        outputs=[
            helper.make_tensor_value_info("num_detections", TensorProto.INT32, ["batch", 1]),
            helper.make_tensor_value_info("detection_boxes", TensorProto.FLOAT, ["batch", n, 4]),
            helper.make_tensor_value_info("detection_scores", TensorProto.FLOAT, ["batch", n]),
            helper.make_tensor_value_info("detection_classes", TensorProto.INT32, ["batch", n]),
        ],
        initializer=g.constants,
    )
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=MAX_IR_VERSION,
        producer_name="ssd_triton",
    )
    onnx.checker.check_model(model, full_check=True)
    return model
