"""A picture of augmented training images with their boxes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image, ImageDraw

from ssd_triton.common.files import atomic_output
from ssd_triton.config import TrainingConfig
from ssd_triton.detector.network.boxes import IMAGE_SIZE_PX
from ssd_triton.training.augmentation import Augmentation, Sources
from ssd_triton.training.device_constants import mean_rgb, std_rgb
from ssd_triton.training.examples import IGNORED, PADDING

_COLUMNS, _ROWS = 4, 3
_OBJECT_RGB, _IGNORED_RGB = (60, 220, 60), (230, 60, 60)


def write_preview(path: Path, sources: Sources, settings: TrainingConfig, labels: Sequence[str]) -> None:
    """Draw a batch with a separate random generator, so that the training is unaffected; ignored boxes are red."""
    device = sources.pixels.device
    generator = torch.Generator(device).manual_seed(settings.seed)
    batch = Augmentation(sources, settings.augmentation, generator).batch(_COLUMNS * _ROWS)
    pixels = ((batch.images * std_rgb(device) + mean_rgb(device)) * 255).round().clamp(0, 255).byte()
    sheet = Image.new("RGB", (_COLUMNS * IMAGE_SIZE_PX, _ROWS * IMAGE_SIZE_PX))
    rows = zip(pixels.permute(0, 2, 3, 1).cpu(), batch.boxes_xyxy.cpu(), batch.labels.cpu(), strict=True)
    for index, (image, boxes, classes) in enumerate(rows):
        tile = Image.fromarray(image.contiguous().numpy())
        draw = ImageDraw.Draw(tile)
        for box, class_id in zip((boxes * IMAGE_SIZE_PX).tolist(), classes.tolist(), strict=True):
            if class_id == PADDING:
                continue
            colour = _IGNORED_RGB if class_id == IGNORED else _OBJECT_RGB
            draw.rectangle(box, outline=colour)
            if class_id != IGNORED:
                draw.text((box[0] + 2, box[1] + 1), labels[class_id], fill=colour)
        sheet.paste(tile, (index % _COLUMNS * IMAGE_SIZE_PX, index // _COLUMNS * IMAGE_SIZE_PX))
    with atomic_output(path) as temporary:
        sheet.save(temporary)
