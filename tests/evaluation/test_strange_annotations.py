"""Annotations as other tools write them, and images that EXIF turns."""

from __future__ import annotations

import codecs
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from ssd_triton.evaluation.dataset import DatasetSource, load_dataset, only_present
from ssd_triton.evaluation.errors import EvaluationError
from ssd_triton.measuring.request_cases import encode
from ssd_triton.training.class_map import ClassMap
from ssd_triton.training.errors import TrainingError
from ssd_triton.training.examples import Source, load_examples
from ssd_triton.training.validation import load_validation
from tests.evaluation.helpers import BOX, LABELS, write_dataset

CLASSES = ClassMap(LABELS, LABELS, {})
CPU = torch.device("cpu")


def test_a_byte_order_mark_is_no_obstacle(tmp_path: Path) -> None:
    source = write_dataset(tmp_path)
    source.annotations.write_bytes(codecs.BOM_UTF8 + source.annotations.read_bytes())
    assert len(load_dataset(source, LABELS).images) > 0


@pytest.mark.parametrize("root", ["my-project", LABELS[1]])
def test_the_root_category_of_roboflow_is_no_obstacle(tmp_path: Path, root: str) -> None:
    source = write_dataset(tmp_path)
    content = json.loads(source.annotations.read_text())
    before = load_dataset(source, LABELS).category_ids
    content["categories"].insert(0, {"id": 0, "name": root, "supercategory": "none"})
    source.annotations.write_text(json.dumps(content))
    assert load_dataset(source, LABELS).category_ids == before
    content["annotations"].append({**content["annotations"][0], "category_id": 0})
    source.annotations.write_text(json.dumps(content))
    with pytest.raises(EvaluationError, match=r"got 3 categories|several categories are named"):
        load_dataset(source, LABELS)


def write_turned(folder: Path, orientation: int, annotated: dict[str, Any], size_px: tuple[int, int]) -> DatasetSource:
    """One image with an EXIF orientation."""
    (folder / "images").mkdir()
    exif = Image.Exif()
    exif[0x0112] = orientation
    (folder / "images" / "1.jpg").write_bytes(encode(Image.new("RGB", size_px), "JPEG", exif=exif))
    images = [{"id": 3, "file_name": "1.jpg", **annotated}]
    boxes = [{"image_id": 3, "category_id": 1, "bbox": BOX}]
    return replace(write_dataset(folder, images=images, annotations=boxes), images=folder / "images")


UPRIGHT, STORED = {"width": 384, "height": 512}, {"width": 512, "height": 384}


def test_boxes_of_turned_images_are_refused_by_name(tmp_path: Path) -> None:
    source = write_turned(tmp_path, 6, UPRIGHT, (512, 384))
    words = r"1 of 1 images are annotated upright but stored on their side, with EXIF to turn them: 1\.jpg; .*exiftran"
    with pytest.raises(EvaluationError, match=words):
        only_present(load_dataset(source, LABELS), skip_missing=False)
    training = Source(source.images, source.annotations)
    with pytest.raises(TrainingError, match=words):
        load_examples(training, CLASSES, 300, skip_bad=False)
    with pytest.raises(TrainingError, match=words):
        load_validation(training, CLASSES, CPU, skip_bad=False)


@pytest.mark.parametrize(
    ("orientation", "annotated"), [(6, STORED), (1, UPRIGHT), (3, STORED), (6, {}), (6, {"width": 1, "height": 2})]
)
def test_other_sizes_are_taken_as_they_are(tmp_path: Path, orientation: int, annotated: dict[str, Any]) -> None:
    source = write_turned(tmp_path, orientation, annotated, (512, 384))
    assert len(only_present(load_dataset(source, LABELS), skip_missing=False).images) == 1
    assert len(load_examples(Source(source.images, source.annotations), CLASSES, 300, skip_bad=False)) == 1
