"""A simulated detector: the ground truth with known errors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ssd_triton.common.detections import Detections
from ssd_triton.config import DetectionNoiseConfig
from ssd_triton.simulation.motion import TargetState
from ssd_triton.simulation.snapshot import Snapshot
from ssd_triton.simulation.visible_targets import VisibleTarget, visible_targets

_SCORE_RANGE = (0.75, 0.98)
"""Scores of simulated detections: above all thresholds, so that misses come from the miss rate alone."""


class NoisyDetector:
    """Reports the visible targets of snapshots with noise; an observer for :func:`ssd_triton.simulation.simulate`.

    Args:
        labels: Class names by id.
        noise: As for :func:`noisy_detections`.
        rng: As for :func:`noisy_detections`.
    """

    def __init__(self, labels: Sequence[str], noise: DetectionNoiseConfig, rng: np.random.Generator) -> None:
        self._labels, self._noise, self._rng = labels, noise, rng

    def __call__(self, snapshot: Snapshot) -> Detections:
        """Detect in a snapshot."""
        visible = visible_targets(snapshot.targets, snapshot.ego, snapshot.camera)
        return noisy_detections(visible, snapshot.targets, self._labels, self._noise, self._rng)


def noisy_detections(
    visible: Sequence[VisibleTarget],
    states: Sequence[TargetState],
    labels: Sequence[str],
    noise: DetectionNoiseConfig,
    rng: np.random.Generator,
) -> Detections:
    """Detections of a detector with known errors.

    Every target draws the same number of random numbers, visible or not: runs that differ in one target have the same
    noise on the others.

    Args:
        visible: The visible targets.
        states: All targets.
        labels: Class names by id.
        noise: Standard deviation of each box side, miss rate, and the least share that must be visible.
        rng: Source of the noise.
    """
    sides_px = rng.normal(0.0, 1.0, (len(states), 4)) * noise.box_px
    missed = rng.random(len(states)) < noise.miss_rate
    scores = rng.uniform(*_SCORE_RANGE, len(states))
    reported = [
        item
        for item in visible
        if item.visible_share >= noise.min_visible_share
        and not missed[item.index]
        and item.box_xyxy[3] - item.box_xyxy[1] >= noise.min_height_px
    ]
    reported.sort(key=lambda item: -scores[item.index])
    if not reported:
        return Detections.empty()
    indices = [item.index for item in reported]
    return Detections(
        (np.array([item.box_xyxy for item in reported]) + sides_px[indices]).astype(np.float32),
        scores[indices].astype(np.float32),
        np.array([labels.index(states[index].target.size.class_name) for index in indices], np.int32),
    )
