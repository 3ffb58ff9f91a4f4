"""Datasets in the layout of COCO, written by the tests."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from ssd_triton.evaluation.dataset import Dataset, DatasetSource
from ssd_triton.evaluation.metrics import CocoResult, Metrics, evaluate
from ssd_triton.evaluation.offline import detect_all

NUM_IMAGES = 40


def write_crops(folder: Path, photograph: bytes, labels: tuple[str, ...]) -> Path:
    """Write crops of the photograph in the layout of COCO, with the person on each."""
    (folder / "val2017").mkdir()
    (folder / "annotations").mkdir()
    picture = Image.open(io.BytesIO(photograph)).convert("RGB")
    images, boxes = [], []
    for index in range(NUM_IMAGES):
        left = index
        crop = picture.crop((left, 0, 512, 600 - left))
        crop.save(folder / f"val2017/{index}.jpg")
        images.append({"id": 100 - index, "file_name": f"{index}.jpg"})
        box = [40 - left, 40, 440, 560 - left]
        boxes.append({"id": index, "image_id": 100 - index, "category_id": 10, "bbox": box, "area": box[2] * box[3]})
    categories = [{"id": 10 * index, "name": name} for index, name in enumerate(labels) if index]
    content = {"images": images, "annotations": boxes, "categories": categories}
    (folder / "annotations/instances_val2017.json").write_text(json.dumps(content))
    return folder


def write_damaged(folder: Path, tmp_path: Path) -> Path:
    """Write four images of a folder, of which the second is no image."""
    content = json.loads((folder / "annotations/instances_val2017.json").read_text())
    content["images"] = content["images"][:4]
    content["annotations"] = content["annotations"][:4]
    (tmp_path / "instances.json").write_text(json.dumps(content))
    for index in range(4):
        shutil.copy(folder / f"val2017/{index}.jpg", tmp_path)
    whole = (folder / "val2017/1.jpg").read_bytes()
    (tmp_path / "1.jpg").write_bytes(whole[: len(whole) // 2])
    return tmp_path


def with_content(name: str, **changes: Any) -> Callable[[Path], list[object]]:
    def make(folder: Path) -> list[object]:
        content = json.loads((folder / "instances.json").read_text())
        (folder / name).write_text(json.dumps({**content, **changes}))
        return ["--images", ".", "--annotations", name]

    return make


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
        Image.new("RGB", (400, 400), (90, 90, 90)).save(folder / name)
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


def evaluate_network(network: torch.nn.Module, dataset: Dataset, batch_size: int) -> Metrics:
    """Evaluate a network on the CPU in batches, by the offline protocol."""
    detected = detect_all(network, dataset, torch.device("cpu"), batch_size)
    results = [one for image, found in detected for one in found.to_coco(image.id, dataset.category_ids)]
    return evaluate(dataset, results)
