"""Detection of cuts in a clip: the picture suddenly shows another scene."""

from __future__ import annotations

import math

import cv2
import numpy as np

from ssd_triton.common.arrays import FloatArray, UInt8Array

_SIZE_PX = (32, 18)
"""Pictures are compared at this size, so that motion by a few pixels has no effect."""
_LIKE, _UNLIKE = 0.85, 0.75
"""Correlation of neighbouring frames above which they show the same scene, and below which they do not. In real and
rendered drives at 10 to 25 frames a second it is at least 0.90, at cuts between them at most 0.71."""
_LONGEST_STEP_S = 0.25
"""Frames farther apart in time are not compared: a drive itself changes as much."""


class CutDetector:
    """Compares each frame with the one before."""

    def __init__(self) -> None:
        self._thumbnail: FloatArray | None = None
        self._time_s = -math.inf
        self._was_like = False

    def is_cut(self, time_s: float, image_rgb: UInt8Array) -> bool:
        """Whether a frame begins another scene; never where the previous frames already differed, as in noise.

        Args:
            time_s: Time of the frame.
            image_rgb: UINT8 [H, W, 3], RGB.
        """
        small = cv2.cvtColor(cv2.resize(image_rgb, _SIZE_PX, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY)
        thumbnail = small.astype(np.float32) - np.float32(small.mean())
        before, self._thumbnail = self._thumbnail, thumbnail
        step_s, self._time_s = time_s - self._time_s, time_s
        if before is None or step_s > _LONGEST_STEP_S:
            self._was_like = False
            return False
        likeness = _correlation(before, thumbnail)
        was_like, self._was_like = self._was_like, likeness > _LIKE
        return was_like and likeness < _UNLIKE


def _correlation(first: FloatArray, second: FloatArray) -> float:
    """Correlation of two pictures of mean 0; 1 where one of them is uniform."""
    scale = float(np.sqrt(np.sum(first * first) * np.sum(second * second)))
    return 1.0 if scale == 0 else float(np.sum(first * second)) / scale
