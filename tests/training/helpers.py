"""Images of rectangles, sets of them, and settings of a small training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ssd_triton.config import AugmentationConfig, Config, LossConfig
from ssd_triton.training.augmentation import Sources
from ssd_triton.training.examples import Source

LABELS = ("background", "red", "blue")
COLOURS_RGB = {1: (220, 40, 40), 2: (40, 60, 220)}
SIDE_PX = 300
OFF = (
    "mosaic_fraction",
    "zoom_in_fraction",
    "zoom_out_fraction",
    "flip_fraction",
    "brightness",
    "contrast",
    "saturation",
    "hue_deg",
    "grey_fraction",
    "noise",
    "erase_fraction",
)


def boxes_of(*rows: tuple[float, float, float, float]) -> torch.Tensor:
    return torch.tensor([rows], dtype=torch.float32)


def loss_settings(**changes: Any) -> LossConfig:
    return LossConfig(
        **{
            "fallback_default_boxes": 1,
            "negatives_per_positive": 3,
            "min_negatives": 0,
            "label_smoothing": 0.0,
            "box_weight": 1.0,
            "smooth_l1_beta": 1.0,
            "teacher_weight": 1.0,
            **changes,
        }
    )


def changed(config: Config, **changes: Any) -> AugmentationConfig:
    return config.training.augmentation.model_copy(update={**dict.fromkeys(OFF, 0.0), **changes})


def rectangles(count: int, side_px: int) -> Sources:
    """Grey images with a rectangle of one colour for each class, none of which hides another."""
    rng = np.random.default_rng(5)
    pixels = np.full((count, side_px, side_px, 3), 120, np.uint8)
    boxes, labels = np.zeros((count, 2, 4), np.float32), np.tile([1, 2], (count, 1))
    for index in range(count):
        for slot, class_id in enumerate((1, 2)):
            width, height = rng.integers(side_px // 5, side_px // 3, 2)
            left = slot * side_px // 2 + rng.integers(0, side_px // 6)
            top = rng.integers(0, side_px - height)
            pixels[index, top : top + height, left : left + width] = COLOURS_RGB[class_id]
            boxes[index, slot] = np.array([left, top, left + width, top + height]) / side_px
    return Sources(
        torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous(),
        torch.from_numpy(boxes),
        torch.from_numpy(labels),
        torch.full((count,), 1 / count, dtype=torch.float64),
        torch.zeros(count, dtype=torch.bool),
    )


def write_set(folder: Path, prefix: str, count: int = 4, compress: int = 6, **changes: Any) -> Source:
    """Images with a red and a blue rectangle; ``compress`` gives the same pixels another content."""
    (folder / prefix).mkdir(parents=True)
    images, annotations = [], []
    for index in range(count):
        pixels = np.full((SIDE_PX, SIDE_PX, 3), 120, np.uint8)
        places = {1: (20 + 30 * index, 30, 110, 120), 2: (150 - 20 * index, 160, 120, 100)}
        for class_id, (left, top, width, height) in places.items():
            pixels[top : top + height, left : left + width] = COLOURS_RGB[class_id]
            annotations.append({"image_id": index + 1, "category_id": class_id, "bbox": [left, top, width, height]})
        name = f"{prefix}{index}.png"
        Image.fromarray(pixels).save(folder / prefix / name, compress_level=compress)
        images.append({"id": index + 1, "file_name": name})
    categories = [{"id": 1, "name": "red"}, {"id": 2, "name": "blue"}]
    content = {"images": images, "annotations": annotations, "categories": categories, **changes}
    (folder / f"{prefix}.json").write_text(json.dumps(content))
    return Source(folder / prefix, folder / f"{prefix}.json")
