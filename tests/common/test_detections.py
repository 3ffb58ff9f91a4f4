"""Detections: selected, named, converted, and never changed."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

from ssd_triton.common.detections import Detections
from ssd_triton.common.errors import UserError
from ssd_triton.common.labels import class_ids_of, counted

LABELS = ("background", "person", "car")


@pytest.fixture
def found() -> Detections:
    boxes = np.array([[-10, 20, 30, 40], [50, 50, 150, 90], [200, 0, 300, 50]], np.float32)
    return Detections(boxes, np.array([0.9, 0.6, 0.3], np.float32), np.array([1, 2, 1], np.int32), labels=LABELS)


def test_index(found: Detections) -> None:
    for index, scores in (
        (0, [0.9]),
        (-1, [0.3]),
        (np.int64(1), [0.6]),
        (slice(1, None), [0.6, 0.3]),
        (found.scores > 0.5, [0.9, 0.6]),
        ([2, 0], [0.3, 0.9]),
        ([], []),
        (np.zeros(3, bool), []),
    ):
        chosen = found[index]
        assert chosen.scores.tolist() == np.float32(scores).tolist()
        assert chosen.labels == LABELS
        assert chosen.boxes_xyxy.shape == (len(scores), 4)
    assert len(found) == 3
    assert [class_id for _, _, class_id in found] == [1, 2, 1]


@pytest.mark.parametrize("index", [3, -4, [5], np.zeros(2, bool), 0.5, "person"])
def test_no_such_detection(found: Detections, index: object) -> None:
    with pytest.raises(IndexError):
        found[index]  # type: ignore[index]


def test_repr_is_one_line(found: Detections) -> None:
    assert repr(found) == "Detections(3: person 0.90, car 0.60, person 0.30)"
    assert repr(Detections.empty()) == "Detections(0)"
    unnamed = Detections(found.boxes_xyxy, found.scores, found.class_ids)
    assert repr(unnamed[:1]) == "Detections(1: class 1 0.90)"
    assert repr(found[[0] * 200]).count("person") == 6
    assert "and 194 more" in repr(found[[0] * 200])


def test_names(found: Detections) -> None:
    assert found.class_names == ("person", "car", "person")
    assert found.filter(score_thresh=0.5, class_ids={1}).class_names == ("person",)
    unnamed = Detections(found.boxes_xyxy, found.scores, found.class_ids)
    with pytest.raises(ValueError, match="with_labels"):
        _ = unnamed.class_names
    assert repr(found.with_labels(LABELS[:2])) == "Detections(3: person 0.90, class 2 0.60, person 0.30)"
    with pytest.raises(UserError, match="got class 2 from the detector"):
        _ = found.with_labels(LABELS[:2]).class_names
    assert "class_name" not in unnamed.to_json()[0]
    assert unnamed.with_labels(LABELS).to_json() == found.to_json()


def test_data_sets_get_boxes_within_the_image(found: Detections) -> None:
    clipped = found.clipped((100, 100))
    assert clipped.boxes_xyxy.tolist() == [[0, 20, 30, 40], [50, 50, 100, 90]]
    assert found.boxes_xyxy[0, 0] == -10
    assert found.to_yolo((100, 100)) == (
        "0 0.150000 0.300000 0.300000 0.200000\n1 0.750000 0.700000 0.500000 0.400000\n"
    )
    assert found.to_coco(7, {2: 3}) == [
        {"image_id": 7, "category_id": 3, "bbox": [50.0, 50.0, 100.0, 40.0], "score": 0.6}
    ]


def test_supervision(found: Detections) -> None:
    if importlib.util.find_spec("supervision") is None:
        with pytest.raises(UserError, match="pip install supervision"):
            found.to_supervision()
        return
    converted = found.to_supervision()
    assert converted["class_name"].tolist() == ["person", "car", "person"]
    assert converted.xyxy.tolist() == found.boxes_xyxy.tolist()
    assert converted.class_id.tolist() == [1, 2, 1]
    converted.xyxy[0] = 0
    assert found.boxes_xyxy[0, 0] == -10
    assert Detections.empty(LABELS).to_supervision().is_empty()


def test_classes_by_name() -> None:
    assert class_ids_of(iter(["car", "person"]), LABELS) == {1, 2}
    for wrong, message in (("Person", "did you mean 'person'"), ("zzz", "such as person, car"), ("background", "such")):
        with pytest.raises(UserError, match=message):
            class_ids_of([wrong], LABELS)


def test_counted() -> None:
    assert counted({"car": 1, "person": 2}) == "2 persons, 1 car"
    assert counted({"bus": 2, "knife": 2, "sheep": 2, "bench": 3}) == "3 benches, 2 buses, 2 knives, 2 sheep"
    assert counted({}) == ""
