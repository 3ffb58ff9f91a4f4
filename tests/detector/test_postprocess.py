"""The post-processing: the NumPy reference against hand-made cases, and ONNX and TorchScript against the reference."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from ssd_triton.common.errors import ExportError
from ssd_triton.detector.export.compare import run_onnx
from ssd_triton.detector.network.boxes import decode, default_boxes_cxcywh, encode
from ssd_triton.detector.postprocessing import onnx_graph as exported
from ssd_triton.detector.postprocessing.parameters import PostprocessParameters
from ssd_triton.detector.postprocessing.reference import check_detections, iou, postprocess
from ssd_triton.detector.postprocessing.torchscript import (
    PostProcess,
    compile_postprocess,
    export_postprocess_script,
    run_script,
)

NUM_LABELS = 5
DEFAULTS = PostprocessParameters()
NOTHING = -20.0


def predictions(
    entries: list[tuple[int, int, float, tuple[float, float, float, float]]],
) -> tuple[np.ndarray, np.ndarray]:
    """Raw predictions with the given ``(default box, class, probability, box_xyxy)`` and nothing else."""
    loc = np.zeros((4, 8732), np.float32)
    conf = np.full((NUM_LABELS, 8732), NOTHING, np.float32)
    conf[0] = 0
    defaults = default_boxes_cxcywh()
    for index, class_id, probability, box in entries:
        loc[:, index] = encode(np.array([box], np.float32), defaults[index : index + 1])[0]
        conf[class_id, index] = np.log(probability / (1 - probability))
    return loc, conf


A = (0.1, 0.1, 0.3, 0.3)
FAR = (0.6, 0.6, 0.8, 0.9)
SHIFTED = (0.1, 0.15, 0.3, 0.35)  # IoU with A: 0.15 / 0.25 = 0.6
LESS = (0.1, 0.2, 0.3, 0.4)  # IoU with A: 1 / 3

CASES = {
    "no objects": ([], []),
    "one": ([(5, 2, 0.9, A)], [(2, 0.9, A)]),
    "below the threshold": ([(5, 2, 0.04, A), (6, 2, 0.06, FAR)], [(2, 0.06, FAR)]),
    "suppressed by a better one": ([(5, 2, 0.7, SHIFTED), (6, 2, 0.8, A)], [(2, 0.8, A)]),
    "little overlap stays": ([(5, 2, 0.7, LESS), (6, 2, 0.8, A)], [(2, 0.8, A), (2, 0.7, LESS)]),
    "classes do not suppress each other": ([(5, 2, 0.7, A), (6, 3, 0.8, A)], [(3, 0.8, A), (2, 0.7, A)]),
    "one box in two classes": ([(5, 1, 0.4, A), (5, 4, 0.3, A)], None),
    "a suppressed box suppresses nothing": (
        # SHIFTED falls to A; (0.1, 0.2) overlaps SHIFTED by 0.6, but A by a third only.
        [(5, 1, 0.9, A), (6, 1, 0.8, SHIFTED), (7, 1, 0.7, LESS)],
        [(1, 0.9, A), (1, 0.7, LESS)],
    ),
    "tie: the lower default box wins": ([(900, 1, 0.5, A), (7, 1, 0.5, SHIFTED)], [(1, 0.5, SHIFTED)]),
    "tie between classes: the lower class first": ([(5, 3, 0.5, A), (6, 1, 0.5, FAR)], [(1, 0.5, FAR), (3, 0.5, A)]),
}


def run_graph(
    loc: np.ndarray, conf: np.ndarray, size_px: list[list[int]], parameters: PostprocessParameters
) -> dict[str, np.ndarray]:
    model = exported.build_postprocess(conf.shape[1], parameters)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    values = session.run(names, {"loc": loc, "conf": conf, "original_size": np.array(size_px, np.int32)})
    return dict(zip(names, values, strict=True))


def run_torchscript(
    loc: np.ndarray, conf: np.ndarray, size_px: list[list[int]], parameters: PostprocessParameters
) -> dict[str, np.ndarray]:
    inputs = {"loc": loc, "conf": conf, "original_size": np.array(size_px, np.int32)}
    return run_script(compile_postprocess(parameters), inputs)


FORMS = {"onnx": run_graph, "torchscript": run_torchscript}
EXPORTS = {"model.onnx": exported.export_postprocess, "model.pt": export_postprocess_script}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("case", CASES)
def test_by_hand(case: str, form: str) -> None:
    entries, expected = CASES[case]
    loc, conf = predictions(entries)
    found = postprocess(loc, conf, (200, 100), DEFAULTS)
    if expected is not None:
        assert found.class_ids.tolist() == [class_id for class_id, _, _ in expected]
        assert found.scores == pytest.approx([score for _, score, _ in expected], abs=1e-4)
        boxes = np.array([box for _, _, box in expected], np.float32).reshape(-1, 4) * [200, 100, 200, 100]
        np.testing.assert_allclose(found.boxes_xyxy, boxes, atol=1e-2)
    graph = FORMS[form](loc[np.newaxis], conf[np.newaxis], [[200, 100]], DEFAULTS)
    n = len(found)
    assert graph["num_detections"].tolist() == [[n]]
    assert graph["detection_classes"][0, :n].tolist() == found.class_ids.tolist()
    np.testing.assert_allclose(graph["detection_scores"][0, :n], found.scores, atol=1e-6)
    np.testing.assert_allclose(graph["detection_boxes"][0, :n], found.boxes_xyxy, atol=1e-3)
    assert not any(graph[name][0, n:].any() for name in graph if name != "num_detections")


def test_an_overlap_of_exactly_the_threshold_suppresses() -> None:
    """Two boxes whose IoU is exactly 0.5 in FP32: the protocol keeps IoU < 0.5."""
    loc = np.zeros((4, 8732), np.float32)
    conf = np.full((NUM_LABELS, 8732), NOTHING, np.float32)
    conf[0] = 0
    # The default boxes of the first map's cell (0, 0): the smaller square, and the same with twice the height.
    first, second = 0, 1
    defaults = default_boxes_cxcywh()
    assert np.array_equal(defaults[first, 2:], defaults[second, 2:])
    boxes = np.array([[0, 0, 0.25, 0.25], [0, 0, 0.25, 0.5]], np.float32)
    assert iou(boxes[0], boxes[1:])[0] == 0.5
    loc[:, [first, second]] = encode(boxes, defaults[[first, second]]).T
    conf[1, [first, second]] = 2, 1
    overlap = iou(decoded(loc, first), decoded(loc, second)[np.newaxis])[0]
    at, above = float(overlap), float(np.nextafter(overlap, np.float32(1)))
    for threshold, kept in ((at, 1), (above, 2)):
        parameters = PostprocessParameters(nms_thresh=threshold)
        assert len(postprocess(loc, conf, (1, 1), parameters)) == kept
        for run in FORMS.values():
            assert run(loc[np.newaxis], conf[np.newaxis], [[1, 1]], parameters)["num_detections"].tolist() == [[kept]]


def decoded(loc: np.ndarray, index: int) -> np.ndarray:
    return decode(loc.T, default_boxes_cxcywh())[index]


@pytest.mark.parametrize(
    "parameters",
    [
        DEFAULTS,
        PostprocessParameters(score_thresh=0.3),
        PostprocessParameters(nms_thresh=0.9),
        PostprocessParameters(topk_candidates=20),
        PostprocessParameters(detections_per_img=7),
        PostprocessParameters(score_thresh=0.0, topk_candidates=400, detections_per_img=300),
    ],
)
def test_exports_equal_the_reference_on_hard_predictions(tmp_path: Path, parameters: PostprocessParameters) -> None:
    num_labels = 81 if parameters == DEFAULTS else 11
    for name, export in EXPORTS.items():
        export(tmp_path / name, num_labels, parameters)
        assert (tmp_path / name).is_file()


def test_a_graph_with_other_thresholds_fails_its_check(tmp_path: Path) -> None:
    """The check itself: a file that differs from the reference must not pass."""
    path = tmp_path / "model.onnx"
    onnx.save_model(exported.build_postprocess(81, PostprocessParameters(nms_thresh=0.45)), path)
    with pytest.raises(ExportError, match="differs from the NumPy reference"):
        check_detections(lambda inputs: run_onnx(path, inputs), 81, DEFAULTS)


def test_nothing_is_left_of_a_failed_export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def other_graph(num_labels: int, parameters: PostprocessParameters) -> object:
        return build(num_labels, PostprocessParameters(score_thresh=0.5))

    build = exported.build_postprocess
    path = tmp_path / "model.onnx"
    path.write_bytes(b"the old artefact")
    monkeypatch.setattr(exported, "build_postprocess", other_graph)
    with pytest.raises(ExportError):
        exported.export_postprocess(path, 81, DEFAULTS)
    assert [child.name for child in tmp_path.iterdir()] == ["model.onnx"]
    assert path.read_bytes() == b"the old artefact"


# --- TorchScript ------------------------------------------------------------------------------------------------------


def tied_predictions(batch: int, num_labels: int = 9) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes with one of 100 sets of scores, in some of which two classes are equal; every third image has nothing."""
    random = np.random.default_rng(batch)
    loc = random.normal(0, 0.5, (batch, 4, 8732)).astype(np.float32)
    columns = random.normal(0, 1.5, (batch, num_labels, 100)).astype(np.float32)
    columns[:, 2, ::4] = columns[:, 3, ::4]
    columns[:, 0] += 3
    columns[2::3, 0] += 50
    conf = np.take_along_axis(columns, random.integers(0, 100, (batch, 1, 8732)), axis=2)
    return loc, conf, random.integers(1, 2000, (batch, 2), np.int32)


@pytest.mark.parametrize("batch", [1, 2, 7, 64])
def test_torchscript_equals_onnx_in_every_place(batch: int) -> None:
    """Also in the order of equal scores, and with more than 200 detections to choose from."""
    loc, conf, size_px = tied_predictions(batch)
    expected = run_graph(loc, conf, size_px.tolist(), DEFAULTS)
    got = run_torchscript(loc, conf, size_px.tolist(), DEFAULTS)
    counts = expected["num_detections"].ravel().tolist()
    assert counts == [0 if index % 3 == 2 else 200 for index in range(batch)]
    for name in ("num_detections", "detection_classes"):
        assert got[name].dtype == expected[name].dtype
        np.testing.assert_array_equal(got[name], expected[name])
    np.testing.assert_allclose(got["detection_scores"], expected["detection_scores"], atol=1e-6)
    np.testing.assert_allclose(got["detection_boxes"], expected["detection_boxes"], atol=1e-2)


def test_a_limited_number_of_pairs_at_once_changes_nothing() -> None:
    loc, conf, size_px = (torch.from_numpy(array) for array in tied_predictions(2))
    whole, parts = (PostProcess(DEFAULTS, max_pairs)(loc, conf, size_px) for max_pairs in (2**24, 3 * 200 * 200))
    assert whole[0].tolist() == [[200], [200]]
    assert all(torch.equal(one, other) for one, other in zip(whole, parts, strict=True))


def test_a_chain_of_boxes_that_suppress_one_another() -> None:
    """The best stays, the second falls to it, the third stays because the second fell, and so on: 101 rounds' worth."""
    chain = [(index, 1, 0.9 - index * 0.005, (0.1, index * 0.008, 0.3, index * 0.008 + 0.025)) for index in range(101)]
    assert iou(np.array(chain[0][3]), np.array([chain[1][3]]))[0] > 0.5
    assert iou(np.array(chain[0][3]), np.array([chain[2][3]]))[0] < 0.5
    loc, conf = predictions(chain)
    found = postprocess(loc, conf, (1000, 1000), DEFAULTS)
    got = run_torchscript(loc[np.newaxis], conf[np.newaxis], [[1000, 1000]], DEFAULTS)
    assert len(found) == 51
    assert got["num_detections"].tolist() == [[51]]
    np.testing.assert_allclose(got["detection_boxes"][0, :51], found.boxes_xyxy, atol=1e-2)


def test_triton_s_own_pytorch_backend_can_run_it(tmp_path: Path) -> None:
    """It has the operators of PyTorch alone, and nothing of torchvision or of this project."""
    torch.jit.save(compile_postprocess(DEFAULTS), tmp_path / "model.pt")
    operators = set(re.findall(r" = (\w+::\w+)", str(torch.jit.load(tmp_path / "model.pt").inlined_graph)))
    assert {"aten::sort", "aten::bmm"} <= operators
    assert {name.split("::")[0] for name in operators} == {"aten", "prim"}
