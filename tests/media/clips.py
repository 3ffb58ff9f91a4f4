"""Clips of four coloured quarters and of noise."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ssd_triton.common.arrays import UInt8Array
from ssd_triton.media.video import Frame, VideoWriter, open_source

RED, GREEN, BLUE, OCHRE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (230, 180, 40)


def quarters(width_px: int = 64, height_px: int = 48) -> UInt8Array:
    """Red, green; blue, ochre: every way of turning and of swapping channels shows."""
    image = np.zeros((height_px, width_px, 3), np.uint8)
    rows, columns = height_px // 2, width_px // 2
    image[:rows, :columns], image[:rows, columns:] = RED, GREEN
    image[rows:, :columns], image[rows:, columns:] = BLUE, OCHRE
    return image


def corner_colours(image_rgb: UInt8Array) -> list[tuple[int, int, int]]:
    """Colours near the four corners, row by row, each rounded to the nearest of the four of ``quarters``."""
    height, width = image_rgb.shape[:2]
    found = []
    for y, x in ((0.25, 0.25), (0.25, 0.75), (0.75, 0.25), (0.75, 0.75)):
        pixel = image_rgb[int(height * y), int(width * x)].astype(int)
        nearest = min((RED, GREEN, BLUE, OCHRE), key=lambda colour: int(np.abs(pixel - colour).max()))
        assert np.abs(pixel - nearest).max() <= 4
        found.append(nearest)
    return found


def write_clip(path: Path, times_s: list[float], image_rgb: UInt8Array | None = None) -> Path:
    image_rgb = quarters() if image_rgb is None else image_rgb
    with VideoWriter(path, (image_rgb.shape[1], image_rgb.shape[0]), 25) as writer:
        for time_s in times_s:
            writer.write(image_rgb, time_s)
    return path


def read(spec: Path | str) -> list[Frame]:
    with open_source(str(spec), image_folder_fps=10) as source:
        return list(source)
