"""Training data: bad boxes, missing images, categories and weights of sets."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ssd_triton.common.errors import UserError
from ssd_triton.evaluation.annotations import Category
from ssd_triton.training import pixels
from ssd_triton.training.class_map import ClassMap, choose_labels
from ssd_triton.training.errors import TrainingError
from ssd_triton.training.examples import IGNORED, PADDING, Source, load_examples
from ssd_triton.training.sampling import draw_weights
from ssd_triton.training.validation import load_validation
from tests.training.helpers import LABELS, write_set

CPU = torch.device("cpu")
BY_NAME = ClassMap(LABELS, LABELS, {})


def test_bad_boxes_are_clipped_dropped_and_counted(tmp_path: Path) -> None:
    boxes = [[-30, 10, 60, 20], [10, 10, 0, 20], [400, 10, 20, 20], [10, 10, 290.5, 20], [5, 5, 20, 20]]
    annotations = [{"image_id": 1, "category_id": 1, "bbox": box} for box in boxes]
    annotations[4]["iscrowd"] = 1
    examples = load_examples(write_set(tmp_path, "a", 1, annotations=annotations), BY_NAME, 300, skip_bad=False)
    assert (examples.problems.clipped, examples.problems.dropped) == (1, 2)
    assert examples.labels.tolist()[0] == [1, 1, IGNORED, PADDING, PADDING]
    assert examples.boxes_xyxy[0, 0].tolist() == pytest.approx([0, 10 / 300, 0.1, 0.1])
    assert examples.pixels.shape == (1, 3, 300, 300)
    assert examples.counts(3) == [0, 2, 0]


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        ({"image_id": 1, "category_id": 1, "bbox": [float("nan"), 0, 1, 1]}, "annotations.0.bbox"),
        ({"image_id": 1, "category_id": 1, "bbox": [0, 0, float("inf"), 1]}, "annotations.0.bbox"),
        ({"image_id": 1, "category_id": 1, "bbox": [0, 0, -1, 1]}, "annotations.0.bbox"),
        ({"image_id": 1, "category_id": 9, "bbox": [0, 0, 1, 1]}, "unknown categories"),
        ({"image_id": 7, "category_id": 1, "bbox": [0, 0, 1, 1]}, "unknown images"),
        ({"image_id": 1, "category_id": 1, "bbox": [0, 0, 0, 1]}, "no box of a class"),
    ],
)
def test_useless_boxes_are_refused(tmp_path: Path, annotation: dict[str, Any], words: str) -> None:
    source = write_set(tmp_path, "a", 1, annotations=[annotation])
    with pytest.raises(UserError, match=words):
        load_examples(source, BY_NAME, 300, skip_bad=False)


def test_missing_and_damaged_images(tmp_path: Path) -> None:
    source = write_set(tmp_path, "a")
    (source.images / "a1.png").unlink()
    (source.images / "a2.png").write_bytes((source.images / "a2.png").read_bytes()[:100])
    with pytest.raises(TrainingError, match=r"2 of 4 images are missing or damaged: a1\.png \(missing\), a2\.png"):
        load_examples(source, BY_NAME, 300, skip_bad=False)
    examples = load_examples(source, BY_NAME, 300, skip_bad=True)
    assert examples.file_names == ("a0.png", "a3.png")
    assert len(examples.problems.bad_images) == 2


def test_processes_decode_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_set(tmp_path, "a", 5)
    (source.images / "a3.png").unlink()
    expected = load_examples(source, BY_NAME, 301, skip_bad=True)
    monkeypatch.setattr(pixels, "_FEWEST_FOR_PROCESSES", 0)
    monkeypatch.setattr(pixels, "_CHUNK", 2)
    got = load_examples(source, BY_NAME, 301, skip_bad=True)
    assert got.file_names == expected.file_names == ("a0.png", "a1.png", "a2.png", "a4.png")
    assert got.content_sha256 == expected.content_sha256
    assert torch.equal(got.pixels, expected.pixels)
    assert len(np.unique(got.pixels.numpy())) > 1


def test_a_set_may_lie_deep(tmp_path: Path) -> None:
    """Linux takes 249 bytes as the name of memory, and thousands as a path."""
    folder = tmp_path / ("a" * 200) / ("b" * 200)
    folder.mkdir(parents=True)
    assert len(load_examples(write_set(folder, "c", 2), BY_NAME, 300, skip_bad=False)) == 2


def test_missing_and_damaged_validation_images(tmp_path: Path) -> None:
    source = write_set(tmp_path, "a")
    (source.images / "a1.png").unlink()
    (source.images / "a2.png").write_bytes(b"no image")
    with pytest.raises(TrainingError, match=r"2 of 4 validation images are missing or damaged: a1\.png, a2\.png"):
        load_validation(source, BY_NAME, CPU, skip_bad=False)
    validation = load_validation(source, BY_NAME, CPU, skip_bad=True)
    assert validation.file_names == ("a0.png", "a3.png")
    assert {box.image_id for box in validation.dataset.annotations} == {1, 4}
    for image in source.images.iterdir():
        image.unlink()
    with pytest.raises(TrainingError, match="4 of 4 validation images"):
        load_validation(source, BY_NAME, CPU, skip_bad=True)


@pytest.mark.parametrize(
    ("names", "name_map", "expected"),
    [
        (["red", "blue"], {}, {1: 1, 2: 2}),
        (["blue", "red"], {}, {1: 2, 2: 1}),
        (["crimson", "red"], {"crimson": "red"}, {1: 1, 2: 1}),
        (["red", "tree"], {"tree": ""}, {1: 1, 2: 0}),
        (["red", "green"], {}, {1: 1, 2: 0}),
        (["red", "rad"], {}, "nearest: 'red'"),
        (["green"], {}, "expected some of the classes to train"),
    ],
)
def test_categories_by_name(names: list[str], name_map: dict[str, str], expected: dict[int, int] | str) -> None:
    categories = [Category(id=index, name=name) for index, name in enumerate(names, start=1)]
    class_map = ClassMap(LABELS, (*LABELS, "green"), name_map)
    if isinstance(expected, dict):
        assert class_map.class_ids(categories, "a.json") == expected
        return
    with pytest.raises(TrainingError, match=expected):
        class_map.class_ids(categories, "a.json")


def test_class_subset() -> None:
    assert choose_labels(LABELS, []) == LABELS
    assert choose_labels(LABELS, ["blue"]) == ("background", "blue")
    with pytest.raises(TrainingError, match="nearest: 'blue'"):
        choose_labels(LABELS, ["bleu"])


def test_rare_classes_and_weighted_sets_are_drawn_more(tmp_path: Path) -> None:
    red = [{"image_id": index, "category_id": 1, "bbox": [1, 1, 50, 50]} for index in (1, 2, 3, 4)]
    blue = {"image_id": 4, "category_id": 2, "bbox": [90, 90, 50, 50]}
    first = load_examples(write_set(tmp_path, "a", annotations=[*red, blue]), BY_NAME, 300, skip_bad=False)
    second = load_examples(write_set(tmp_path, "b", 1, annotations=red[:1]), BY_NAME, 300, skip_bad=False)
    assert draw_weights([first, second], 3, {}, rare=0.0).tolist() == pytest.approx([0.2] * 5)
    rare = draw_weights([first], 3, {}, rare=1.0).tolist()
    assert rare[3] / rare[0] == pytest.approx(2.0)  # blue is in a quarter of the images: sqrt(1 / 0.25)
    heavy = [
        Source(one.source.images, one.source.annotations, 3.0 if one is second else 1.0) for one in (first, second)
    ]
    weighted = [replace(one, source=source) for one, source in zip((first, second), heavy, strict=True)]
    assert draw_weights(weighted, 3, {}, rare=0.0)[4].item() == pytest.approx(0.75)


def test_boxes_of_mixed_images_keep_their_order_and_bad_images_leave_no_gap(tmp_path: Path) -> None:
    places = [(4, 1, 10), (1, 2, 20), (4, 2, 30), (2, 1, 40), (1, 1, 50), (4, 1, 0)]
    annotations = [
        {"image_id": image, "category_id": category, "bbox": [0, 0, side, side], "score": side}
        for image, category, side in places
    ]
    source = write_set(tmp_path, "a", annotations=annotations)
    whole = load_examples(source, BY_NAME, 300, skip_bad=False)
    (source.images / "a1.png").unlink()
    examples = load_examples(source, BY_NAME, 300, skip_bad=True)
    assert examples.labels.tolist() == [[2, 1, PADDING], [PADDING] * 3, [1, 2, PADDING]]
    assert (examples.boxes_xyxy[..., 2] * 300).round().tolist() == [[20, 50, 0], [0] * 3, [10, 30, 0]]
    assert torch.equal(examples.pixels, whole.pixels[[0, 2, 3]])
    with Image.open(source.images / "a3.png") as image:
        assert np.array_equal(examples.pixels[2].permute(1, 2, 0).numpy(), np.asarray(image))
    assert (examples.problems.dropped, whole.problems.dropped) == (1, 1)


def test_unknown_annotated_categories_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has unknown annotated_category_ids"):
        load_examples(write_set(tmp_path, "a", 1, annotated_category_ids=[1, 9]), BY_NAME, 300, skip_bad=False)
