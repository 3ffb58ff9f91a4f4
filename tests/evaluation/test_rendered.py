"""What a detector finds in rendered traffic, judged by hand-made cases."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ssd_triton.common.detections import Detections
from ssd_triton.driving.camera import Camera
from ssd_triton.evaluation.errors import EvaluationError
from ssd_triton.simulation import Scenario, Target
from ssd_triton.simulation.judging.visibility import Criteria, Recall, judge, kind_of, read_rendered
from ssd_triton.simulation.judging.visibility_images import RenderedImages
from ssd_triton.simulation.judging.visibility_report import recall_table
from ssd_triton.simulation.motion import road_pose, target_state
from ssd_triton.simulation.scenario import Criterion, Road
from ssd_triton.simulation.snapshot import Snapshot
from ssd_triton.simulation.truth_files import offset_m

CRITERIA = Criteria(
    score_thresh=0.5,
    match_iou_thresh=0.5,
    false_iou_thresh=0.3,
    min_visibility=0.5,
    relevant_range_m=40.0,
    relevant_offset_m=3.0,
)
BOX = (100.0, 100.0, 200.0, 200.0)
HALF = (100.0, 100.0, 200.0, 150.0)
"""Overlaps BOX by an IoU of 0.5."""
THIRD = (100.0, 100.0, 200.0, 136.0)
ELSEWHERE = (300.0, 100.0, 400.0, 200.0)
Given = tuple[tuple[float, float, float, float], str]


def truth_file(folder: Path, labels: tuple[str, ...], rows: list[dict[str, Any]], images: int = 1) -> Path:
    path = folder / "truth.json"
    annotations = [
        {
            "image_id": 1,
            "category_id": labels.index(row.get("name", "car")),
            "bbox": [BOX[0], BOX[1], BOX[2] - BOX[0], BOX[3] - BOX[1]],
            "visibility": 1.0,
            "range_m": 20.0,
            "offset_m": 0.0,
            **{key: value for key, value in row.items() if key != "name"},
        }
        for row in rows
    ]
    content = {
        "images": [{"id": number, "file_name": f"{number:06d}.jpg"} for number in range(1, images + 1)],
        "annotations": annotations,
        "categories": [{"id": number, "name": name} for number, name in enumerate(labels) if number],
    }
    path.write_text(json.dumps(content))
    return path


def found(labels: tuple[str, ...], *given: Given, score: float = 0.9) -> Detections:
    return Detections(
        np.array([box for box, _ in given], np.float32).reshape(-1, 4),
        np.full(len(given), score, np.float32),
        np.array([labels.index(name) for _, name in given], np.int32),
    )


@pytest.mark.parametrize(
    ("target", "given", "recall", "relevant", "false"),
    [
        ({}, [], (1, 0), (1, 0), {}),
        ({}, [(BOX, "car")], (1, 1), (1, 1), {}),
        ({}, [(BOX, "truck")], (1, 1), (1, 1), {}),
        ({}, [(BOX, "person")], (1, 0), (1, 0), {"person": 1}),
        ({}, [(BOX, "motorcycle")], (1, 0), (1, 0), {"two-wheeler": 1}),
        ({}, [(BOX, "umbrella")], (1, 0), (1, 0), {"other": 1}),
        ({}, [(HALF, "car")], (1, 1), (1, 1), {}),
        ({}, [(THIRD, "car")], (1, 0), (1, 0), {}),
        ({}, [(BOX, "car"), (BOX, "bus"), (ELSEWHERE, "car")], (1, 1), (1, 1), {"vehicle": 1}),
        ({"range_m": 41.0}, [], (1, 0), (0, 0), {}),
        ({"offset_m": 3.1}, [(BOX, "car")], (1, 1), (0, 0), {}),
        ({"visibility": 0.4}, [], (0, 0), (0, 0), {}),
        ({"visibility": 0.4}, [(BOX, "car")], (0, 0), (0, 0), {}),
    ],
)
def test_one_vehicle(  # noqa: PLR0917
    labels: tuple[str, ...],
    tmp_path: Path,
    target: dict[str, Any],
    given: list[Given],
    recall: tuple[int, int],
    relevant: tuple[int, int],
    false: dict[str, int],
) -> None:
    truth = read_rendered(truth_file(tmp_path, labels, [target]))
    visibility = judge(truth, [found(labels, *given)], labels, CRITERIA)
    assert visibility.recall("vehicle", 0, 90) == Recall(*recall)
    assert visibility.relevant_recall() == visibility.relevant_recall("vehicle") == Recall(*relevant)
    assert {kind: count for kind, count in visibility.false_boxes.items() if count} == false


def test_one_box_finds_one_target_and_as_many_are_found_as_can_be(labels: tuple[str, ...], tmp_path: Path) -> None:
    truth = read_rendered(truth_file(tmp_path, labels, [{}, {"bbox": [100, 100, 100, 50]}, {"name": "person"}]))
    both = judge(truth, [found(labels, (BOX, "car"), (HALF, "car"))], labels, CRITERIA)
    assert both.recall("vehicle", 0, 90) == Recall(2, 2)
    assert both.recall("person", 0, 90) == Recall(1, 0)
    # The better fit of either target: one of both is found, not both.
    one = judge(truth, [found(labels, (HALF, "car"))], labels, CRITERIA)
    assert one.recall("vehicle", 0, 90) == Recall(2, 1)


def test_low_scores_do_not_count_and_bands_divide_ranges(labels: tuple[str, ...], tmp_path: Path) -> None:
    truth = read_rendered(truth_file(tmp_path, labels, [{"range_m": 10.0}], images=2))
    answers = [found(labels, (BOX, "car"), score=0.5), found(labels, (BOX, "car"))]
    visibility = judge(truth, answers, labels, CRITERIA)
    assert visibility.recall("vehicle", 0, 10) == Recall(0, 0)
    assert visibility.recall("vehicle", 10, 20) == Recall(1, 0)
    # The second image has no car.
    assert visibility.false_per_frame("vehicle") == 0.5
    assert "| 10 to 20 | 0.000 (0 of 1) | none there |" in recall_table(visibility)


def test_kinds(labels: tuple[str, ...]) -> None:
    kinds = {name: kind_of(name) for name in labels[1:]}
    assert {name for name, kind in kinds.items() if kind != "other"} == {
        "car", "bus", "truck", "bicycle", "motorcycle", "person"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("road", "offset", "width_m", "expected_m"),
    [
        (Road(), 0.0, 1.84, 0.0),
        (Road(), 3.5, 1.84, 3.5 - 0.92),
        (Road(), -3.5, 1.84, 3.5 - 0.92),
        # On a bend the way bends, too: straight ahead, the same car would be beside the road.
        (Road(curvature_per_m=1 / 100), 0.0, 1.84, 0.0),
        (Road(curvature_per_m=1 / 100), 3.5, 1.84, 3.5 - 0.92),
    ],
)
def test_offset_from_the_way(road: Road, offset: float, width_m: float, expected_m: float) -> None:
    scenario = Scenario("test", 0.0, (Target("saloon", 40.0, offset),), Criterion("none", "none"), 1.0, road)
    states = tuple(target_state(item, road, 1.5, 0.0) for item in scenario.targets)
    camera = Camera.from_fov((640, 360), horizontal_fov_deg=60, height_m=1.3)
    assert states[0].target.size.width_m == width_m
    snapshot = Snapshot(0.0, scenario, road_pose(road, 0.0), 0.0, 0.0, 0.0, 0.0, camera, states)
    # A car of 4.7 m on a bend of 100 m bulges by 3 cm.
    assert offset_m(states[0], snapshot) == pytest.approx(expected_m, abs=0.04)
    aside = replace(snapshot, ego=road_pose(road, 0.0, 0.5))
    assert offset_m(states[0], aside) == pytest.approx(abs(offset - 0.5) - 0.92 if offset else 0.0, abs=0.04)


def test_other_annotations_are_refused(labels: tuple[str, ...], tmp_path: Path) -> None:
    path = truth_file(tmp_path, labels, [{}])
    content = json.loads(path.read_text())
    del content["annotations"][0]["offset_m"]
    path.write_text(json.dumps(content))
    with pytest.raises(EvaluationError, match=r"lacks 'annotations\.0\.offset_m'.*ssd-triton render-dataset"):
        read_rendered(path)


def test_images_must_be_there(labels: tuple[str, ...], tmp_path: Path) -> None:
    path = truth_file(tmp_path, labels, [{}])
    with pytest.raises(EvaluationError, match=r"lacks 1 of 1 images.*000001\.jpg"):
        RenderedImages(tmp_path, path)
    with pytest.raises(EvaluationError, match="images not found"):
        RenderedImages(tmp_path / "none", path)
