"""COCO datasets: what is refused, and how categories map."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ssd_triton.evaluation.annotations import Category
from ssd_triton.evaluation.categories import match_categories
from ssd_triton.evaluation.dataset import DatasetSource, load_dataset, only_present
from ssd_triton.evaluation.errors import EvaluationError
from ssd_triton.evaluation.metrics import evaluate
from tests.evaluation.helpers import BOX, CAR, LABELS, write_dataset

# --- Datasets ---------------------------------------------------------------------------------------------------------


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
        (
            {"images": [{"id": 3, "file_name": "../3.png"}, {"id": 7, "file_name": "7.png"}]},
            "outside the folder.*--images",
        ),
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


# --- Categories -------------------------------------------------------------------------------------------------------


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
