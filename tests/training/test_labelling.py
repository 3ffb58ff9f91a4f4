"""Labels of another detector: decoding by hand, what joins annotations, and whole runs of a small TorchScript model."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ssd_triton.commands.runner import run_verb
from ssd_triton.common.detections import Detections
from ssd_triton.config import LabelConfig
from ssd_triton.training.errors import TrainingError
from ssd_triton.training.labelling.decoding import decode
from ssd_triton.training.labelling.description import DetectorDescription, read_description
from ssd_triton.training.labelling.merging import Counts, Truth, new_boxes

INPUT = {"width_px": 64, "height_px": 32}


def described(outputs: dict[str, Any], **more: Any) -> DetectorDescription:
    return DetectorDescription.model_validate(
        {"file": "x.pt", "classes": ["person", "car"], "input": INPUT, "outputs": outputs, **more}
    )


def test_distances_from_a_grid_and_its_mirror_image() -> None:
    """A cell of 32 px at x 32 to 64 whose sides lie 1, 0, 0 and 1 strides away."""
    scores, bins = np.zeros((2, 2, 2), np.float32), np.full((2, 2, 4, 2), -50, np.float32)
    bins[..., 0] = 0
    scores[0, 1, 1] = 0.9
    bins[0, 1, [0, 3]] = (-50, 0)
    scores[1, 0, 1] = 0.7  # the mirror image has it on the left, and its right side far
    bins[1, 0, [2, 3]] = (-50, 0)
    outputs = [scores, bins.reshape(2, 2, 8)]
    kind = {"kind": "distances", "strides": [32]}
    [found, mirrored] = decode(outputs, described(kind), 0.5)
    assert found[0].tolist() == [[16, 16, 48, 48]]
    assert mirrored[0].tolist() == [[16, 16, 48, 48]]
    [(boxes, values, classes)] = decode(outputs, described(kind, mirror=True), 0.5)
    assert boxes.tolist() == [[16, 16, 48, 48]]
    assert values.tolist() == pytest.approx([0.8])
    assert classes.tolist() == [1]


def test_centres_in_either_order_with_objectness_and_suppression() -> None:
    rows = [[20, 10, 10, 10, 0.9, 1.0, 0.1], [21, 10, 10, 10, 0.8, 1.0, 0.1], [50, 20, 4, 4, 0.9, 0.2, 0.9]]
    output = np.array([rows], np.float32)
    for one in (output, output.transpose(0, 2, 1)):
        [(boxes, scores, classes)] = decode([one], described({"kind": "centres", "objectness": True}), 0.5)
        assert boxes.tolist() == [[15, 5, 25, 15], [48, 18, 52, 22]]
        assert scores.tolist() == pytest.approx([0.9, 0.81])
        assert classes.tolist() == [0, 1]


def test_outputs_that_do_not_fit_are_refused() -> None:
    for kind in ({"kind": "distances", "strides": [8]}, {"kind": "centres"}, {"kind": "boxes"}):
        with pytest.raises(TrainingError, match="correct the description"):
            decode([np.zeros((1, 5, 9), np.float32)], described(kind), 0.5)


@pytest.mark.parametrize(
    ("box", "score", "class_id", "verdict"),
    [
        ((0, 0, 10, 10), 0.9, 1, "known"),  # the annotated person
        ((0, 0, 10, 9), 0.9, 2, "contradicting"),  # a car where a person is annotated
        ((0, 0, 10, 5), 0.9, 2, "objects"),  # overlaps by half: it may stand in front
        ((30, 0, 40, 10), 0.9, 1, "ignored"),  # a person that the annotations lack
        ((30, 0, 40, 10), 0.3, 2, "ignored"),
        ((30, 0, 40, 10), 0.46, 2, "objects"),
        ((60, 0, 70, 10), 0.9, 2, "known"),  # in a crowd
    ],
)
def test_what_joins_annotations_that_cover_people(
    box: Sequence[float], score: float, class_id: int, verdict: str
) -> None:
    truth = Truth(np.array([[0, 0, 10, 10], [60, 0, 70, 10]], np.float32), (1, 1), (False, True), {1})
    found = Detections(np.array([box], np.float32), np.array([score], np.float32), np.array([class_id], np.int32))
    counts = Counts()
    added = new_boxes(found, truth, LabelConfig(), counts)
    assert {name: of for name, of in counts.of.items() if of} == {verdict: Counter([class_id])}
    assert [one.ignored for one in added] == {"objects": [False], "ignored": [True]}.get(verdict, [])


class _Fixed(torch.nn.Module):
    """Finds a car in the middle of each image, and a person at its upper left corner, less surely."""

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        count = images.shape[0]
        boxes = torch.tensor([[16.0, 16.0, 48.0, 48.0], [0.0, 0.0, 8.0, 16.0]])
        return boxes.repeat(count, 1, 1), torch.tensor([[0.9, 0.3]]).repeat(count, 1), torch.tensor([[1, 0]] * count)


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("detector")
    torch.jit.script(_Fixed()).save(str(folder / "fixed.pt"))
    (folder / "fixed.yml").write_text(
        "file: fixed.pt\nclasses: [person, car]\ninput: {width_px: 64, height_px: 64}\noutputs: {kind: boxes}\n"
    )
    return folder / "fixed.yml"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    rng = np.random.default_rng(1)
    (tmp_path / "photos").mkdir()
    for number in range(3):
        coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8))
        coarse.resize((128, 64)).save(tmp_path / "photos" / f"{number}.png")
    (tmp_path / "photos" / "3.jpg").write_bytes(b"\xff\xd8\xff damaged")
    return tmp_path / "photos"


def run(*words: object) -> int:
    return run_verb("label", [str(word) for word in words], script="label.py")


def test_a_folder_is_labelled_without_copies_of_evaluation_images(
    detector: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "val").mkdir()
    Image.open(photos / "2.png").resize((96, 48)).save(tmp_path / "val" / "other.jpg")
    words = (photos, "--detector", detector, "--not-in", tmp_path / "val", "--output", tmp_path / "out")
    assert run(*words) == 0
    printed = capsys.readouterr().out
    assert "2 images labelled; 1 looks like an evaluation image, 1 missing or damaged" in printed
    content = json.loads((tmp_path / "out" / "annotations.json").read_text())
    assert [image["file_name"] for image in content["images"]] == ["0.png", "1.png"]
    car, person = content["annotations"][:2]
    assert (car["bbox"], car["iscrowd"], car["score"]) == ([32, 16, 64, 32], 0, 0.9)
    assert (person["bbox"], person["iscrowd"]) == ([0, 0, 16, 16], 1)
    assert len(content["categories"]) == 80
    assert (tmp_path / "out" / "labels.jpg").stat().st_size > 0
    assert run(*words) == 0, "what is done already is taken from the journal"
    (tmp_path / "out" / "annotations.json").write_text(json.dumps(content, indent=1))
    assert run(*words) == 1
    assert "was edited" in capsys.readouterr().err


def test_annotations_are_completed_and_kept(detector: Path, photos: Path, tmp_path: Path) -> None:
    people = {
        "images": [{"id": 7, "file_name": "0.png"}],
        "annotations": [{"image_id": 7, "category_id": 3, "bbox": [30, 16, 60, 30]}],
        "categories": [{"id": 3, "name": "person"}, {"id": 4, "name": "car"}],
        "annotated_category_ids": [3],
    }
    (tmp_path / "people.json").write_text(json.dumps(people))
    words = (photos, "--detector", detector, "--complete", tmp_path / "people.json", "--output", tmp_path / "out")
    assert run(*words) == 0
    content = json.loads((tmp_path / "out" / "annotations.json").read_text())
    found = content["annotations"]
    assert ["score" in one for one in found] == [False, True]
    assert content["annotated_category_ids"] == [1, 3], "people by the file, cars by the detector"
    # The car lies on the annotated person and goes; the person in the corner may have been missed.
    assert [(one["category_id"], one["bbox"], one["iscrowd"]) for one in found] == [
        (1, [30, 16, 60, 30], 0),
        (1, [0, 0, 16, 16], 1),
    ]


def test_bad_input_is_one_line(
    detector: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    text = detector.read_text().replace("fixed.pt", str(detector.parent / "fixed.pt"))
    others = {
        "unknown class": text.replace("person", "persona"),
        "too few classes": text.replace("[person, car]", "[person]"),
        "other outputs": text.replace("kind: boxes", "kind: centres"),
        "unknown key": text.replace("width_px", "width"),
    }
    for name, content in others.items():
        (tmp_path / f"{name}.yml").write_text(content)
    expected = {
        (photos, tmp_path / "unknown class.yml"): "nearest: 'person'",
        (photos, tmp_path / "too few classes.yml"): "fewer than the 1 of 'classes'",
        (photos, tmp_path / "other outputs.yml"): "correct the description",
        (photos, tmp_path / "unknown key.yml"): "width",
        (tmp_path / "empty", detector): "got no image",
    }
    for (folder, description), message in expected.items():
        assert run(folder, "--detector", description, "--output", tmp_path / "out") == 1, description
        error = capsys.readouterr().err.strip().splitlines()
        assert len(error) == 1
        assert message in error[0]


def test_the_description_says_where_its_classes_are(detector: Path) -> None:
    assert read_description(detector).classes == ("person", "car")
    with pytest.raises(TrainingError, match="each class once"):
        (detector.parent / "twice.yml").write_text(detector.read_text().replace("car", "person"))
        read_description(detector.parent / "twice.yml")
