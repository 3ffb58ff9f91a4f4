"""COCO's figures on real and on tiny ground truth, what datasets are refused, and results that survive."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as PilImage
from ssd_triton.evaluation.journal import open_journal

from ssd_triton.common.detections import Detections
from ssd_triton.config import Config
from ssd_triton.detector.network.ssd import ServedDetector
from ssd_triton.detector.postprocessing import reference
from ssd_triton.evaluation.annotations import Category
from ssd_triton.evaluation.categories import match_categories
from ssd_triton.evaluation.compare import Comparison
from ssd_triton.evaluation.dataset import Dataset, DatasetSource, load_dataset, only_present
from ssd_triton.evaluation.errors import EvaluationError
from ssd_triton.evaluation.evaluate import Evaluation
from ssd_triton.evaluation.metrics import FIGURES, CocoResult, check_installed, evaluate, to_coco
from ssd_triton.evaluation.misses import draw_miss, worst_misses
from ssd_triton.evaluation.offline import evaluate_detector, evaluate_network
from ssd_triton.evaluation.report import write_report

LABELS = ("background", "person", "car")
BOX = [100.0, 100.0, 100.0, 100.0]
"""Left, top, width, height: a large object."""


def write_dataset(folder: Path, **changes: Any) -> DatasetSource:
    """Two images of 400 x 400 px, a person on the first and a car on the second, with ids as COCO has them."""
    content = {
        "images": [{"id": 7, "file_name": "7.png"}, {"id": 3, "file_name": "3.png"}],
        "annotations": [
            {"id": 0, "image_id": 3, "category_id": 1, "bbox": BOX, "area": 1e4, "iscrowd": 0},
            {"id": 1, "image_id": 7, "category_id": 90, "bbox": BOX, "area": 1e4, "iscrowd": 0},
        ],
        "categories": [{"id": 90, "name": "car"}, {"id": 1, "name": "person"}],
        **changes,
    }
    for name in ("3.png", "7.png"):
        PilImage.new("RGB", (400, 400), (90, 90, 90)).save(folder / name)
    path = folder / "instances.json"
    path.write_text(json.dumps(content))
    return DatasetSource(folder, path)


def found(image_id: int, category_id: int, score: float, shift_px: float = 0) -> CocoResult:
    return {
        "image_id": image_id,
        "category_id": category_id,
        "bbox": [BOX[0] + shift_px, *BOX[1:]],
        "score": score,
    }


PERSON, CAR = found(3, 1, 0.9), found(7, 90, 0.8)


@pytest.fixture
def tiny(tmp_path: Path) -> Dataset:
    return load_dataset(write_dataset(tmp_path), LABELS)


# --- Figures ---------------------------------------------------------------------------------------------------------


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
    results = to_coco(detections, 3, dataset.category_ids)
    assert results == [{"image_id": 3, "category_id": 5, "bbox": BOX, "score": 0.8}]
    metrics = evaluate(dataset, results)
    assert metrics.ap == pytest.approx(1)
    assert [(one.name, one.objects) for one in metrics.classes] == [("pedestrian", 1)]


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


def test_reference_in_batches_is_the_reference(
    data: Callable[[str], Path], config: Config, labels: tuple[str, ...], reference_detector: ServedDetector
) -> None:
    source = DatasetSource(data("coco/val"), data("coco/instances_dev_eval.json"), limit=3)
    dataset = load_dataset(source, labels, config.coco.name_map)
    one_by_one = evaluate_detector(lambda encoded: reference.detect(reference_detector, encoded), dataset)
    assert 0.05 < one_by_one.ap < 0.8
    in_batches = evaluate_network(reference_detector, dataset, torch.device("cpu"), batch_size=2)
    assert in_batches.figures == pytest.approx(one_by_one.figures, abs=1e-3)


def test_damaged_image_is_named(tiny: Dataset, reference_detector: ServedDetector) -> None:
    tiny.path(tiny.images[1]).write_bytes(b"no image")
    with pytest.raises(EvaluationError, match=r"7\.png: got no readable image"):
        evaluate_network(reference_detector, tiny, torch.device("cpu"), batch_size=2)
    with pytest.raises(EvaluationError, match=r"7\.png: got no readable image"):
        evaluate_detector(lambda encoded: reference.detect(reference_detector, encoded), tiny)


@pytest.mark.parametrize("package", ["pycocotools", "matplotlib"])
def test_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(EvaluationError, match=rf"needs {package}, .*pip install -e '\.\[eval\]'"):
        check_installed()


# --- Datasets --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"images": 1}, "images: input should be a valid"),
        ({"categories": None}, "categories: input should be"),
        ({"annotations": []}, "lacks boxes"),
        ({"annotations": [{"image_id": 3, "category_id": 1}]}, r"lacks 'annotations\.0\.bbox'"),
        ({"annotations": [{"image_id": 3, "category_id": 1, "bbox": [0, 0, -1, 5]}]}, "greater than or equal to 0"),
        ({"annotations": [{"image_id": 4, "category_id": 1, "bbox": BOX}]}, r"unknown images \(1, such as 4\)"),
        ({"annotations": [{"image_id": 3, "category_id": 2, "bbox": BOX}]}, r"unknown categories \(1, such as 2\)"),
        ({"images": [{"id": 3, "file_name": "3.png"}] * 2}, "the same image more than once"),
        ({"images": [{"id": 3, "file_name": "../3.png"}, {"id": 7, "file_name": "7.png"}]}, "outside the folder"),
    ],
)
def test_refuses_what_is_no_coco_file(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(EvaluationError, match=words) as error:
        load_dataset(write_dataset(tmp_path, **changes), LABELS)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", ["", "[]", "{", '{"images": []}', "\x00"])
def test_refuses_other_files(tmp_path: Path, content: str) -> None:
    path = tmp_path / "instances.json"
    path.write_text(content)
    with pytest.raises(EvaluationError, match=r"expected a COCO instances_\*\.json file"):
        load_dataset(DatasetSource(tmp_path, path), LABELS)
    with pytest.raises(EvaluationError, match=r"cannot read the annotations .*none\.json"):
        load_dataset(DatasetSource(tmp_path, tmp_path / "none.json"), LABELS)


def test_images_are_chosen_evenly_and_by_set(tmp_path: Path) -> None:
    images = [{"id": key, "file_name": f"{key}.png"} for key in (50, 10, 20, 40, 30)]
    boxes = [{"image_id": key, "category_id": 1, "bbox": BOX} for key in (10, 40)]
    source = write_dataset(tmp_path, images=images, annotations=boxes)

    def ids(**choice: Any) -> list[int]:
        chosen = DatasetSource(source.images, source.annotations, **choice)
        return [image.id for image in load_dataset(chosen, LABELS).images]

    assert ids() == [10, 20, 30, 40, 50]
    assert ids(image_set="annotated") == [10, 40]
    assert ids(limit=3) == [10, 20, 40]
    assert ids(limit=1, image_set="annotated") == [10]
    with pytest.raises(EvaluationError, match=r"got 5 images .* expected 6 or more"):
        ids(limit=6)


def test_absent_images(tmp_path: Path) -> None:
    dataset = load_dataset(write_dataset(tmp_path), LABELS)
    assert only_present(dataset, skip_missing=False) == dataset
    (tmp_path / "3.png").unlink()
    with pytest.raises(EvaluationError, match=r"lacks 1 of 2 images .*: 3\.png; .*--skip-missing"):
        only_present(dataset, skip_missing=False)
    present = only_present(dataset, skip_missing=True)
    assert ([image.id for image in present.images], present.left_out) == ([7], ("3.png",))
    assert "1 missing ones left out" in present.set_name
    assert evaluate(present, [CAR]).ap == pytest.approx(1)
    (tmp_path / "7.png").unlink()
    with pytest.raises(EvaluationError, match="holds none of the 2 images"):
        only_present(dataset, skip_missing=True)


# --- Categories ------------------------------------------------------------------------------------------------------


def categories(*names: str) -> list[Category]:
    return [Category(id=10 * index, name=name) for index, name in enumerate(names, start=1)]


@pytest.mark.parametrize(
    ("names", "name_map", "expected"),
    [
        ([], {}, {}),
        (["person", "car", "bus"], {}, {1: 10, 2: 20, 3: 30}),
        (["bus", "person", "car"], {}, {1: 20, 2: 30, 3: 10}),
        (["person", "auto", "bus"], {}, {1: 10, 2: 20, 3: 30}),
        (["bus", "auto", "person"], {"auto": "car"}, {1: 30, 2: 20, 3: 10}),
        (["bus"], {"unused": "of another model"}, {3: 10}),
        (["coach"], {"coach": "bus"}, {3: 10}),
    ],
)
def test_categories_map(names: list[str], name_map: dict[str, str], expected: dict[int, int]) -> None:
    labels = ("background", "person", "car", "bus")
    assert match_categories(categories(*names), labels, name_map, "file") == expected


@pytest.mark.parametrize(
    ("names", "name_map", "words"),
    [
        (["person", "car", "bus", "tram"], {}, "got 4 categories, expected at most the 3 classes"),
        (["persons"], {}, r"no class .* 'persons' \(nearest: 'person'\); give --name-map"),
        (["car", "auto", "bus"], {}, "car at another place, .* 'auto'"),
        (["car", "auto"], {"auto": "car"}, "several categories are named car"),
        (["auto"], {"auto": "cars"}, r"from 'auto' to 'cars' \(nearest: 'car'\)"),
    ],
)
def test_categories_that_do_not_match(names: list[str], name_map: dict[str, str], words: str) -> None:
    with pytest.raises(EvaluationError, match=words):
        match_categories(categories(*names), ("background", "person", "car", "bus"), name_map, "file")


def test_other_names_are_told(caplog: pytest.LogCaptureFixture) -> None:
    match_categories(categories("human", "car"), LABELS, {}, "file")
    assert "1 categories are taken for the model's classes by their order" in caplog.text
    assert "human (person)" in caplog.text


# --- Kept results ----------------------------------------------------------------------------------------------------


def detections(*scores: float) -> Detections:
    """Random boxes: every bit of them must survive."""
    boxes = np.random.default_rng(len(scores)).uniform(-5, 640, (len(scores), 4)).astype(np.float32)
    return Detections(boxes, np.array(scores, np.float32), np.arange(1, len(scores) + 1, dtype=np.int32))


def test_results_come_back_as_they_were_kept(tmp_path: Path) -> None:
    path = tmp_path / "out" / "results.jsonl"
    kept = {1: detections(), 2: detections(0.1, 1 / 3), 3: "damaged"}
    with open_journal(path, {"model": "ssd"}) as journal:
        journal.begin_session()
        for image_id, answer in kept.items():
            journal.add(image_id, answer, 0.25)
    with open_journal(path, {"model": "ssd"}) as journal:
        assert list(journal.results) == [1, 2, 3]
        assert journal.results[3].refusal == "damaged"
        for image_id in (1, 2):
            again = journal.results[image_id].detections
            expected = kept[image_id]
            assert isinstance(expected, Detections)
            assert again is not None
            for name in ("boxes_xyxy", "scores", "class_ids"):
                np.testing.assert_array_equal(getattr(again, name), getattr(expected, name))
        journal.begin_session()
        assert journal.session == 1


def test_torn_last_line_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    with open_journal(path, {}) as journal:
        journal.begin_session()
        journal.add(1, detections(0.5), 0.1)
        journal.add(2, detections(0.6), 0.1)
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    with open_journal(path, {}) as journal:
        assert list(journal.results) == [1]
        journal.begin_session()
        journal.add(2, detections(0.6), 0.1)
    with open_journal(path, {}) as journal:
        assert list(journal.results) == [1, 2]


def test_results_of_something_else_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    before = {"models": {"ssd": {"score_thresh": "0.05"}}, "dataset": {"limit": None}}
    with open_journal(path, before) as journal:
        journal.begin_session()
        journal.add(1, detections(0.5), 0.1)
    now = {"models": {"ssd": {"score_thresh": "0.3"}}, "dataset": {"limit": None}}
    with pytest.raises(EvaluationError, match=r"models\.ssd\.score_thresh was 0\.05, is 0\.3\. --restart drops"):
        open_journal(path, now)
    with open_journal(path, before) as journal:
        assert list(journal.results) == [1]
        with pytest.raises(EvaluationError, match="another evaluation is writing"):
            open_journal(path, before)
    with open_journal(path, now, restart=True) as journal:
        assert journal.results == {}
    path.write_text("something of the user's\n")
    with pytest.raises(EvaluationError, match="--restart begins anew"):
        open_journal(path, now)


def test_full_disk_loses_no_result(tmp_path: Path) -> None:
    """The kernel refuses to write beyond a limit, as it does when the disk is full."""
    code = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from ssd_triton.evaluation.errors import EvaluationError\n"
        "from ssd_triton.evaluation.journal import open_journal\n"
        "from ssd_triton.common.detections import Detections\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))\n"
        "with open_journal(Path(sys.argv[1]), {}) as journal:\n"
        "    journal.begin_session()\n"
        "    try:\n"
        "        for image_id in range(100): journal.add(image_id, Detections.empty(), 0.1)\n"
        "    except EvaluationError as error: print(len(journal.results), error)\n"
    )
    path = tmp_path / "results.jsonl"
    result = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    count, message = result.stdout.strip().split(" ", 1)
    assert f"the results of {count} images are kept; make room and run the same command again" in message
    with open_journal(path, {}) as journal:
        assert list(journal.results) == list(range(int(count)))
        assert len(journal.results) > 3


# --- Reports ---------------------------------------------------------------------------------------------------------


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
