"""INT8: the Q/DQ graph, the gate, and the real model."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from PIL import Image

from ssd_triton.common.arrays import AnyArray
from ssd_triton.common.detections import Detections
from ssd_triton.config import Config
from ssd_triton.detector.export.compare import relative_error, run_onnx
from ssd_triton.detector.export.samples import photographs
from ssd_triton.detector.network.boxes import NUM_DEFAULT_BOXES, default_boxes_cxcywh
from ssd_triton.detector.postprocessing.parameters import PostprocessParameters
from ssd_triton.detector.postprocessing.reference import iou, postprocess
from ssd_triton.detector.protocol import preprocess
from ssd_triton.detector.quantization import quantize as quantize_module
from ssd_triton.detector.quantization.quantize import activations, export_int8, layer_names, open_session, quantize
from ssd_triton.detector.quantization.ranges import CalibrationError, CalibrationRanges, load_ranges, ranges_path
from ssd_triton.detector.weights.file import WeightsFile
from ssd_triton.evaluation import sensitivity
from ssd_triton.evaluation.sensitivity import (
    EvaluationImages,
    LayerError,
    average_precision,
    check_evaluation,
    layer_errors,
)
from tests.detector.quantized import TENSORS

CPU = "CPUExecutionProvider"
OPENVINO = "OpenVINOExecutionProvider"
LAYERS = ["stem", "main", "skip", "loc_head", "conf_head"]


def initializers(model: onnx.ModelProto) -> dict[str, AnyArray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


# --- The graph --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("weight_bits", "max_level"), [(8, 127), (7, 63)])
def test_graph_is_symmetric_int8_per_channel(
    tiny: Path, ranges: CalibrationRanges, weight_bits: int, max_level: int
) -> None:
    source = onnx.load(tiny)
    assert layer_names(source) == LAYERS
    assert activations(source) == TENSORS
    ranges = ranges.model_copy(update={"weight_bits": weight_bits})
    model = quantize(source, ranges, exclude=(), name="tiny")
    assert (model.ir_version, [opset.version for opset in model.opset_import]) == (10, [18])
    constants = initializers(model)
    for node in model.graph.node:
        if node.op_type in {"QuantizeLinear", "DequantizeLinear"}:
            scale, zero_point = constants[node.input[1]], constants[node.input[2]]
            assert zero_point.dtype == np.int8 and not zero_point.any()
            assert scale.dtype == np.float32 and (scale > 0).all() and scale.shape == zero_point.shape
    for name in LAYERS:
        weight, float_weight = constants[f"{name}.weight"], initializers(source)[f"{name}.weight"]
        scale = constants[f"{name}.weight_scale"]
        assert weight.dtype == np.int8 and scale.shape == (len(weight),)
        assert (np.abs(weight).max(axis=(1, 2, 3)) == max_level).all()
        restored = weight * scale[:, np.newaxis, np.newaxis, np.newaxis]
        assert (np.abs(restored - float_weight).max(axis=(1, 2, 3)) <= scale / 2 * 1.001).all()
    by_name = {node.name: node for node in model.graph.node}
    assert by_name["stem.weight_dequantized"].attribute[0].i == 0
    assert model.graph.input == source.graph.input and model.graph.output == source.graph.output


def test_pairs_lie_where_runtimes_fuse_them(tiny: Path, ranges: CalibrationRanges) -> None:
    model = quantize(onnx.load(tiny), ranges, exclude=(), name="tiny")
    inputs = {output: list(node.input) for node in model.graph.node for output in node.output}
    assert inputs["pooled"] == ["stem_relu_dequantized"]
    assert inputs["main_out"][0] == inputs["skip_out"][0] == "pooled"
    assert inputs["sum"] == ["main_out", "skip_out_dequantized"]
    assert inputs["loc_head_out"][0] == inputs["conf_head_out"][0] == "map_dequantized"
    assert sum(node.op_type == "QuantizeLinear" for node in model.graph.node) == len(TENSORS)


def test_excluded_layer_stays_in_fp32_and_reads_fp32(tiny: Path, ranges: CalibrationRanges) -> None:
    source = onnx.load(tiny)
    model = quantize(source, ranges, exclude=["conf_head"], name="tiny")
    inputs = {output: list(node.input) for node in model.graph.node for output in node.output}
    assert inputs["loc_head_out"][0] == "map_dequantized"
    assert inputs["conf_head_out"] == ["map", "conf_head.weight", "conf_head"]
    assert initializers(model)["conf_head.weight"].dtype == np.float32
    assert quantize(source, ranges, exclude=LAYERS, name="tiny").graph.node == source.graph.node


def test_a_channel_and_an_activation_of_zeros_get_a_scale(tiny: Path, ranges: CalibrationRanges) -> None:
    source = onnx.load(tiny)
    stored = next(tensor for tensor in source.graph.initializer if tensor.name == "main.weight")
    weight = numpy_helper.to_array(stored).copy()
    weight[3] = 0
    stored.CopyFrom(numpy_helper.from_array(weight, "main.weight"))
    zero = ranges.model_copy(update={"ranges": {**ranges.ranges, "map": (0.0, 0.0)}})
    constants = initializers(quantize(source, zero, exclude=(), name="tiny"))
    assert constants["main.weight_scale"][3] == 1 and constants["map_scale"] == 1


def test_refuses_ranges_that_do_not_fit(tiny: Path, ranges: CalibrationRanges) -> None:
    fewer = ranges.model_copy(update={"ranges": {"pixels": (0.0, 1.0)}})
    with pytest.raises(CalibrationError, match=r"3 of 4 tensors: stem_relu, skip_out, map; .*.ssd-triton quantize"):
        quantize(onnx.load(tiny), fewer, exclude=(), name="tiny")
    with pytest.raises(CalibrationError, match=r"no layer stam to exclude, expected some of stem, main"):
        quantize(onnx.load(tiny), ranges, exclude=["stam"], name="tiny")


@pytest.mark.parametrize("provider", [CPU, OPENVINO])
def test_export_runs_at_any_batch(tmp_path: Path, tiny: Path, ranges: CalibrationRanges, provider: str) -> None:
    path = tmp_path / "int8.onnx"
    views = photographs(None, 3)
    # With 8 bits OpenVINO's sums overflow on a CPU without VNNI.
    ranges = ranges.model_copy(update={"weight_bits": 7})
    errors = export_int8(tiny, ranges, path, exclude=(), images_rgb=views)
    assert set(errors) == {"loc", "conf"} and max(errors.values()) < 0.05
    expected = run_onnx(tiny, {"image": views})
    loc, conf = open_session(path, provider).run(["loc", "conf"], {"image": views})
    assert relative_error(loc, expected["loc"]) < 0.05
    assert relative_error(conf, expected["conf"]) < 0.05


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_interrupted_build_leaves_the_old_file(
    tmp_path: Path,
    tiny: Path,
    ranges: CalibrationRanges,
    monkeypatch: pytest.MonkeyPatch,
    error: type[BaseException],
) -> None:
    path = tmp_path / "out" / "int8.onnx"
    path.parent.mkdir()
    path.write_bytes(b"old")

    def stop(*args: object, **kwargs: object) -> None:
        raise error

    monkeypatch.setattr(quantize_module, "check_values", stop)
    with pytest.raises(error):
        export_int8(tiny, ranges, path, exclude=(), images_rgb=photographs(None, 2))
    assert [file.name for file in path.parent.iterdir()] == ["int8.onnx"]
    assert path.read_bytes() == b"old"


# --- Sensitivity and the gate -----------------------------------------------------------------------------------------


def test_layers_are_ranked_by_what_quantising_them_costs(tiny: Path, ranges: CalibrationRanges) -> None:
    wide = ranges.model_copy(update={"ranges": {**ranges.ranges, "pixels": (-60.0, 60.0)}})
    found = layer_errors(tiny, wide, photographs(None, 2), CPU)
    assert sorted(error.layer for error in found) == sorted(LAYERS)
    assert found[0].layer == "stem"
    assert [error.worst for error in found] == sorted((error.worst for error in found), reverse=True)
    by_name = {error.layer: error for error in found}
    assert by_name["loc_head"].conf == 0 < by_name["loc_head"].loc


def test_gate_keeps_the_smallest_exclusion(
    tiny: Path, ranges: CalibrationRanges, monkeypatch: pytest.MonkeyPatch
) -> None:
    ranked = [LayerError(name, 0.1 - 0.01 * index, 0.01) for index, name in enumerate(LAYERS)]
    images = EvaluationImages(Path("val"), Path("instances.json"), 10)

    def gate(aps: list[float], max_layer_error: float = 1.0) -> CalibrationRanges:
        remaining = iter(aps)
        monkeypatch.setattr(sensitivity, "average_precision", lambda session, images: next(remaining))
        return sensitivity.smallest_exclusion(
            tiny, ranges, ranked, images, max_ap_loss=0.01, max_layer_error=max_layer_error, provider=CPU
        )

    assert gate([0.5, 0.495]).exclude == ()
    passed = gate([0.5, 0.4, 0.45, 0.491])
    assert passed.exclude == ("stem", "main")
    assert passed.gate is not None
    assert (passed.gate.ap_fp32, passed.gate.ap_int8, passed.gate.num_images) == (0.5, 0.491, 10)
    with pytest.raises(CalibrationError, match=r"got AP 0\.3000 .*expected at least 0\.4900; calibrate again"):
        gate([0.5] + [0.3] * 5)
    assert gate([0.5, 0.5], max_layer_error=0.085).exclude == ("stem", "main")
    assert gate([0.5, 0.4, 0.5], max_layer_error=0.085).exclude == tuple(LAYERS[:3])
    assert gate([0.5, 0.5], max_layer_error=1e-3).exclude == tuple(LAYERS[:-1])


def test_average_precision_of_a_perfect_and_of_a_blind_detector(tmp_path: Path) -> None:
    index, class_id = 8000, 3
    categories = [{"id": 2 * n + 5, "name": f"name {n}"} for n in range(80)]
    x, y, width, height = (default_boxes_cxcywh()[index] * 300).tolist()
    box = [x - width / 2, y - height / 2, width, height]
    Image.new("RGB", (300, 300)).save(tmp_path / "1.png")
    truth = {"id": 1, "image_id": 7, "category_id": 9, "bbox": box, "area": width * height, "iscrowd": 0}
    annotations = tmp_path / "instances.json"
    dataset = {"images": [{"id": 7, "file_name": "1.png"}], "annotations": [truth], "categories": categories[::-1]}
    annotations.write_text(json.dumps(dataset))
    images = EvaluationImages(tmp_path, annotations, 1)
    conf = np.zeros((1, 81, NUM_DEFAULT_BOXES), np.float32)
    conf[:, 0] = 30
    loc = np.zeros((1, 4, NUM_DEFAULT_BOXES), np.float32)
    session = cast(Any, SimpleNamespace(run=lambda names, inputs: [loc, conf]))
    assert average_precision(session, images) == 0
    conf[0, class_id, index] = 40
    assert average_precision(session, images) == pytest.approx(1)
    with pytest.raises(CalibrationError, match=r"got 1 images .* expected 2 or more"):
        average_precision(session, EvaluationImages(tmp_path, annotations, 2))
    check_evaluation(images)
    (tmp_path / "1.png").unlink()
    with pytest.raises(CalibrationError, match=r"1\.png: got no such file, expected an image"):
        average_precision(session, images)
    with pytest.raises(CalibrationError, match=r"lacks 1 of 1 images .* 1\.png; give their folder"):
        check_evaluation(images)
    annotations.write_text(json.dumps({**dataset, "annotations": []}))
    with pytest.raises(CalibrationError, match="lacks boxes"):
        check_evaluation(images)


# --- The real model ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fp32(config: Config) -> Path:
    path = config.model_repository / "ssd_detector" / "1" / "onnx_fp32.onnx"
    if not path.is_file():
        pytest.skip(f"{path.name} is not built: run 'ssd-triton build'")
    return path


@pytest.fixture(scope="module")
def shipped(config: Config) -> CalibrationRanges:
    return load_ranges(ranges_path(config.weights_path), WeightsFile(config.weights_path))


@pytest.fixture(scope="module")
def int8(fp32: Path, shipped: CalibrationRanges, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("int8") / "onnx_int8.onnx"
    export_int8(fp32, shipped, path, exclude=shipped.exclude, images_rgb=photographs(None, 2))
    return path


def test_shipped_ranges_fit_the_shipped_weights(fp32: Path, shipped: CalibrationRanges) -> None:
    model = onnx.load(fp32)
    assert set(activations(model)) == set(shipped.ranges)
    assert set(shipped.exclude) <= set(layer_names(model))
    assert shipped.gate is not None
    assert shipped.gate.ap_fp32 - shipped.gate.ap_int8 <= shipped.gate.max_ap_loss


SCORE_ERROR = 0.1
"""Of INT8 against FP32."""


def detections(path: Path, provider: str, photograph: bytes) -> Detections:
    pixels, size_px = preprocess(photograph)
    loc, conf = open_session(path, provider).run(["loc", "conf"], {"image": pixels[np.newaxis]})
    return postprocess(loc[0], conf[0], size_px, PostprocessParameters()).filter(score_thresh=0.3 - SCORE_ERROR)


@pytest.mark.parametrize("provider", [CPU, OPENVINO])
@pytest.mark.slow
def test_real_detections_are_those_of_fp32(int8: Path, fp32: Path, photograph: bytes, provider: str) -> None:
    assert int8.stat().st_size < 0.3 * fp32.stat().st_size
    expected, got = detections(fp32, CPU, photograph), detections(int8, provider, photograph)
    assert len(expected.filter(score_thresh=0.3)) > 0
    # From a score of 0.3 on, each has its like in the other, whose score may be a little below.
    for ones, others in ((expected, got), (got, expected)):
        for box, score, class_id in ones.filter(score_thresh=0.3):
            alike = (others.class_ids == class_id) & (iou(box, others.boxes_xyxy) > 0.8)
            assert (np.abs(others.scores[alike] - score) < SCORE_ERROR).any()
