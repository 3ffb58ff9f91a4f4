"""Results in files: each format read back, whole or absent."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from ssd_triton.client.results import Result, open_results, results_path
from ssd_triton.common.detections import Detections
from ssd_triton.common.result_format import ResultFormat

LABELS = ("background", "person", "traffic light")
FORMATS: tuple[ResultFormat, ...] = get_args(ResultFormat)


def results() -> list[Result]:
    boxes = np.array([[-1, 2, 30, 40], [5, 5, 600, 700], [400, 400, 500, 500]], np.float32)
    scores, class_ids = np.array([0.9, 0.6, 0.5], np.float32), np.array([1, 2, 2], np.int32)
    found = Detections(boxes, scores, class_ids, labels=LABELS)
    return [
        Result(os.fsdecode(b"a/caf\xe9.jpg"), "caf", found, (100, 200), annotated="caf.annotated.jpg"),
        Result("b.jpg", "b", error='damaged, "very"'),
        Result("clip.mp4", "clip_000012", found[:0], (100, 200), frame=12, time_s=0.4800000001),
    ]


def write(folder: Path, kind: ResultFormat, items: list[Result]) -> Path:
    with open_results(folder, kind, LABELS) as write_one:
        for item in items:
            write_one(item)
    return results_path(folder, kind)


@pytest.mark.parametrize("kind", ["json", "jsonl"])
def test_json(tmp_path: Path, kind: ResultFormat) -> None:
    text = write(tmp_path, kind, results()).read_text("ascii")
    records = json.loads(text) if kind == "json" else [json.loads(line) for line in text.splitlines()]
    named, refused, frame = records
    assert os.fsencode(named["file"]) == b"a/caf\xe9.jpg"
    assert named["annotated"] == "caf.annotated.jpg"
    assert named["detections"][0] == {
        "box_xyxy": [-1.0, 2.0, 30.0, 40.0],
        "score": 0.9,
        "class_id": 1,
        "class_name": "person",
    }
    assert refused == {"file": "b.jpg", "error": 'damaged, "very"'}
    assert frame == {"file": "clip.mp4", "frame": 12, "time_s": 0.48, "detections": []}


def test_csv(tmp_path: Path) -> None:
    with write(tmp_path, "csv", results()).open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["class_name"], row["score"], row["left_px"], row["bottom_px"]) for row in rows[:2]] == [
        ("person", "0.9", "-1.0", "40.0"),
        ("traffic light", "0.6", "5.0", "700.0"),
    ]
    assert [row["error"] for row in rows] == ["", "", "", 'damaged, "very"']


def test_coco(tmp_path: Path) -> None:
    dataset = json.loads(write(tmp_path, "coco", results()).read_text("ascii"))
    assert [one["name"] for one in dataset["categories"]] == ["person", "traffic light"]
    image, frame = dataset["images"]
    assert (image["id"], image["width"], image["height"]) == (1, 100, 200)
    assert (frame["file_name"], frame["frame"]) == ("clip_000012.jpg", 12)
    assert [(one["id"], one["image_id"], one["category_id"], one["bbox"]) for one in dataset["annotations"]] == [
        (1, 1, 1, [0.0, 2.0, 30.0, 38.0]),
        (2, 1, 2, [5.0, 5.0, 95.0, 195.0]),
    ]


def test_coco_is_read_by_pycocotools(tmp_path: Path) -> None:
    coco = pytest.importorskip("pycocotools.coco").COCO(str(write(tmp_path, "coco", results())))
    assert len(coco.getAnnIds(imgIds=[1])) == 2
    assert coco.getAnnIds(imgIds=[2]) == []


def test_yolo(tmp_path: Path) -> None:
    labels = write(tmp_path, "yolo", results())
    assert sorted(path.name for path in labels.iterdir()) == ["caf.txt", "clip_000012.txt"]
    classes, *box = (labels / "caf.txt").read_text().splitlines()[0].split()
    assert classes == "0"
    assert list(map(float, box)) == pytest.approx([0.15, 0.105, 0.3, 0.19])
    assert (labels / "clip_000012.txt").read_text() == ""
    assert (tmp_path / "classes.txt").read_text() == "person\ntraffic light\n"


@pytest.mark.parametrize("kind", FORMATS)
def test_nothing_found_at_all(tmp_path: Path, kind: ResultFormat) -> None:
    path = write(tmp_path, kind, [])
    if kind == "coco":
        assert json.loads(path.read_text())["annotations"] == []
    elif kind == "json":
        assert json.loads(path.read_text()) == []
    elif kind != "yolo":
        assert len(path.read_text().splitlines()) == (kind == "csv")


@pytest.mark.parametrize("kind", [kind for kind in FORMATS if kind != "yolo"])
def test_after_an_error_the_old_file_is_in_place(tmp_path: Path, kind: ResultFormat) -> None:
    path = write(tmp_path, kind, results())
    old = path.read_bytes()
    with pytest.raises(KeyboardInterrupt), open_results(tmp_path, kind, LABELS) as write_one:
        write_one(results()[0])
        raise KeyboardInterrupt
    assert path.read_bytes() == old
    assert list(tmp_path.iterdir()) == [path]
