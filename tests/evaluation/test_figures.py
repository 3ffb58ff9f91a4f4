"""COCO's figures on real and on tiny ground truth, and their reports."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PilImage

from ssd_triton.common.detections import Detections
from ssd_triton.config import Config
from ssd_triton.detector import protocol
from ssd_triton.detector.network.ssd import ServedDetector
from ssd_triton.evaluation.compare import Comparison
from ssd_triton.evaluation.dataset import Dataset, DatasetSource, load_dataset
from ssd_triton.evaluation.errors import EvaluationError
from ssd_triton.evaluation.evaluate import Evaluation
from ssd_triton.evaluation.metrics import FIGURES, CocoResult, check_installed, evaluate
from ssd_triton.evaluation.misses import draw_miss, worst_misses
from ssd_triton.evaluation.offline import evaluate_detector
from ssd_triton.evaluation.report import write_report
from tests.evaluation.helpers import BOX, CAR, LABELS, PERSON, evaluate_network, found, write_dataset


@pytest.fixture
def tiny(tmp_path: Path) -> Dataset:
    return load_dataset(write_dataset(tmp_path), LABELS)


# --- Figures ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("results", "expected"),
    [
        # Nothing is found.
        ([], {"AP": 0, "AP50": 0, "AP_large": 0, "AP_small": None, "AR100": 0}),
        # The truth itself; the annotation with id 0 counts as any other.
        ([PERSON, CAR], {"AP": 1, "AP75": 1, "AP_large": 1, "AR1": 1}),
        # Both shifted by a fifth: IoU 80 / 120, which passes 0.50, 0.55, 0.60 and 0.65 of ten thresholds.
        ([found(3, 1, 0.9, 20), found(7, 90, 0.8, 20)], {"AP": 0.4, "AP50": 1, "AP75": 0}),
        # The person is called a car, with the best score: no person, and cars found at a precision of a half.
        ([found(3, 90, 0.9), CAR], {"AP": 0.25, "AP50": 0.25}),
        # As before, but scored below the real car: precision is 1 until all cars are found.
        ([found(3, 90, 0.5), CAR], {"AP": 0.5}),
        # Found twice: the second one finds nothing, after the recall is complete.
        ([PERSON, found(3, 1, 0.6, 2), CAR], {"AP": 1}),
    ],
)
def test_figures_are_those_computed_by_hand(
    tiny: Dataset, results: list[CocoResult], expected: dict[str, float | None]
) -> None:
    figures = evaluate(tiny, results).figures
    assert tuple(figures) == FIGURES
    assert {name: figures[name] for name in expected} == pytest.approx(expected)


def test_crowds_are_neither_found_nor_missed(tmp_path: Path) -> None:
    boxes = [
        {"image_id": 3, "category_id": 1, "bbox": BOX},
        {"image_id": 3, "category_id": 1, "bbox": [0, 200, 400, 200], "iscrowd": 1},
        {"image_id": 7, "category_id": 90, "bbox": BOX},
    ]
    crowd = load_dataset(write_dataset(tmp_path, annotations=boxes), LABELS)
    assert evaluate(crowd, [PERSON, CAR]).ap == pytest.approx(1)
    in_the_crowd = {**PERSON, "bbox": [50.0, 250.0, 60.0, 100.0], "score": 0.99}
    assert evaluate(crowd, [in_the_crowd, PERSON, CAR]).ap == pytest.approx(1)
    on_nobody = {**in_the_crowd, "bbox": [300.0, 10.0, 60.0, 60.0]}
    assert evaluate(crowd, [on_nobody, PERSON, CAR]).ap == pytest.approx(0.75)


def test_classes_that_the_file_lacks_do_not_count(tmp_path: Path) -> None:
    people = write_dataset(
        tmp_path,
        categories=[{"id": 5, "name": "pedestrian"}],
        annotations=[{"image_id": 3, "category_id": 5, "bbox": BOX}],
    )
    dataset = load_dataset(people, LABELS, {"pedestrian": "person"})
    box = np.array([[100, 100, 200, 200]] * 2, np.float32)
    detections = Detections(box, np.array([0.9, 0.8], np.float32), np.array([2, 1], np.int32))
    results = detections.to_coco(3, dataset.category_ids)
    assert results == [{"image_id": 3, "category_id": 5, "bbox": BOX, "score": 0.8}]
    metrics = evaluate(dataset, results)
    assert metrics.ap == pytest.approx(1)
    assert [(one.name, one.objects) for one in metrics.classes] == [("pedestrian", 1)]


@pytest.mark.slow
def test_real_ground_truth_as_detections_has_ap_1(
    data: Callable[[str], Path], config: Config, labels: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    source = DatasetSource(data("coco/val"), data("coco/instances_dev_eval.json"), limit=200)
    dataset = load_dataset(source, labels, config.coco.name_map)
    assert any(one.iscrowd for one in dataset.annotations)
    truth = [
        {"image_id": one.image_id, "category_id": one.category_id, "bbox": list(one.bbox), "score": 1.0}
        for one in dataset.annotations
        if not one.iscrowd
    ]
    metrics = evaluate(dataset, truth)
    assert [metrics.figures[name] for name in FIGURES[:6]] == pytest.approx([1] * 6)
    halved = [{**one, "bbox": [*one["bbox"][:2], one["bbox"][2] / 2, one["bbox"][3]]} for one in truth]
    assert evaluate(dataset, halved).ap < 0.2
    assert capsys.readouterr().out == ""


@pytest.mark.slow
def test_reference_in_batches_is_the_reference(
    data: Callable[[str], Path], config: Config, labels: tuple[str, ...], reference_detector: ServedDetector
) -> None:
    source = DatasetSource(data("coco/val"), data("coco/instances_dev_eval.json"), limit=3)
    dataset = load_dataset(source, labels, config.coco.name_map)
    one_by_one = evaluate_detector(lambda encoded: protocol.detect(reference_detector, encoded), dataset)
    assert 0.05 < one_by_one.ap < 0.8
    in_batches = evaluate_network(reference_detector, dataset, batch_size=2)
    assert in_batches.figures == pytest.approx(one_by_one.figures, abs=1e-3)


def test_damaged_image_is_named(tiny: Dataset, reference_detector: ServedDetector) -> None:
    tiny.path(tiny.images[1]).write_bytes(b"no image")
    with pytest.raises(EvaluationError, match=r"7\.png: got no readable image"):
        evaluate_network(reference_detector, tiny, batch_size=2)
    with pytest.raises(EvaluationError, match=r"7\.png: got no readable image"):
        evaluate_detector(lambda encoded: protocol.detect(reference_detector, encoded), tiny)


@pytest.mark.parametrize("package", ["pycocotools", "matplotlib"])
def test_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(EvaluationError, match=rf"needs {package}, .*pip install -e '\.\[eval\]'"):
        check_installed()


# --- Reports ----------------------------------------------------------------------------------------------------------


def test_worst_misses(tiny: Dataset) -> None:
    assert worst_misses(tiny, evaluate(tiny, [PERSON, CAR]), [PERSON, CAR], 5) == []
    # The person is only found with a low score; on the other image, the car is found and so is something else.
    results = [{**PERSON, "score": 0.2}, CAR, found(7, 1, 0.7, 150)]
    first, second = worst_misses(tiny, evaluate(tiny, results), results, 5)
    assert (first.image.id, first.missed, first.missed_large, first.false_positives) == (3, {0}, {0}, {})
    assert (second.image.id, second.missed, second.false_positives) == (7, set(), {2: 0.7})
    assert (first.badness, second.badness) == (1, 0.7)
    picture = draw_miss(tiny, results, first)
    assert picture.shape == (400, 808, 3)
    left, right = picture[:, :400].astype(int), picture[:, 408:].astype(int)
    assert np.abs(left[100:200, 100:200] - 90).max() > 60
    assert np.abs(right - 90).max() == 0
    assert len(worst_misses(tiny, evaluate(tiny, results), results, 1)) == 1


def test_report_of_nothing_and_of_something(tiny: Dataset, tmp_path: Path) -> None:
    for results in ([], [PERSON, {**CAR, "bbox": [0.0, 0.0, 50.0, 50.0]}]):
        metrics = evaluate(tiny, results)
        evaluation = Evaluation("<ssd>", tiny, metrics, results, {"a&b.png": "damaged"}, None, {})
        detections_json, metrics_json, page = write_report(evaluation, tmp_path / "report")
        assert json.loads(detections_json.read_text()) == results
        written = json.loads(metrics_json.read_text())
        assert written["figures"] == metrics.figures
        assert written["counts"]["images_refused"] == {"a&b.png": "damaged"}
        text = page.read_text()
        assert "&lt;ssd&gt;" in text
        assert "a&amp;b.png" in text
        assert "misses/7.jpg" in text
        with PilImage.open(tmp_path / "report/precision_recall.png") as plot:
            assert min(plot.size) > 300


@pytest.mark.parametrize(("difference", "passed"), [(0.0, True), (0.005, True), (-0.0051, False), (0.0051, False)])
def test_gate_is_on_either_side(tiny: Dataset, difference: float, passed: bool) -> None:
    evaluation = Evaluation("onnx_int8", tiny, evaluate(tiny, []), [], {}, None, {})
    assert Comparison("onnx_int8", evaluation, difference, allowed=0.005).passed is passed


def test_what_does_not_run_here_is_not_judged() -> None:
    assert Comparison("tensorrt_fp16", None, 0.0, allowed=0.001, note="skipped: no GPU").passed
