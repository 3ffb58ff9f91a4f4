"""Natural-looking random textures: sums of noise at several scales."""

from __future__ import annotations

import cv2
import numpy as np

from ssd_triton.common.arrays import FloatArray


def cloud_noise(
    rng: np.random.Generator, size_px: tuple[int, int], coarsest: tuple[int, int], octaves: int, roughness: float = 0.5
) -> FloatArray:
    """Noise that tiles seamlessly.

    Args:
        rng: Source of the noise.
        size_px: Width and height.
        coarsest: Number of features of the coarsest octave across width and height.
        octaves: Each has twice as many features as the one before.
        roughness: Amplitude of an octave relative to the one before.

    Returns:
        FP32 [height, width], mean about 0, standard deviation 1.
    """
    width, height = size_px
    total = np.zeros((height, width), np.float32)
    for octave in range(octaves):
        columns, rows = (min(count << octave, side) for count, side in zip(coarsest, size_px, strict=True))
        grid = rng.standard_normal((rows, columns), dtype=np.float32)
        margin = 2
        wrapped = np.pad(grid, margin, mode="wrap")
        scale_x, scale_y = width / columns, height / rows
        whole = (round(wrapped.shape[1] * scale_x), round(wrapped.shape[0] * scale_y))
        fine = cv2.resize(wrapped, whole, interpolation=cv2.INTER_CUBIC)
        left, top = round(margin * scale_x), round(margin * scale_y)
        total += roughness**octave * fine[top : top + height, left : left + width]
    normalised: FloatArray = ((total - total.mean()) / max(float(total.std()), 1e-6)).astype(np.float32)
    return normalised
