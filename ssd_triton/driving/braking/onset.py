"""Onset test: whether a leading vehicle has begun to brake, with more certainty and earlier than by a filter.

The filter of range and closing speed must allow for braking at any time. Its estimates are therefore noisy in steady
traffic, and late when the vehicle brakes. This test instead compares two models of the last two seconds: constant speed
throughout, or constant speed until an onset and constant braking after it. The measure is the braking of a
least-squares fit, divided by its standard deviation.

Positions along the road are the ego's own distance plus the range from the object's apparent size, separately by height
and by width. Both must show the braking, and agree on it: a car that turns off gets wider and not higher, and errors of
the detector in one side affect only one of them. Pitch has no influence, and a constant error of the size hardly any.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

import numpy as np

from ssd_triton.common.arrays import Float64Array
from ssd_triton.config import ObjectSizeConfig
from ssd_triton.driving.braking.ego import EgoMotion
from ssd_triton.driving.braking.observation import BOTTOM, LEFT, RIGHT, TOP, Observation

SPAN_S = 2.0
"""Length of the fit. Over a longer span, traffic does not keep a constant speed; over a shorter one, the speed before
the onset is not known well enough."""

_ONSETS_S = (0.4, 0.6, 0.8, 1.0)
"""Candidate times since the onset. At 20 fps and 50 km/h, 6 m/s² become visible after 0.4 to 0.6 s."""

_FEWEST_BEFORE, _FEWEST_SINCE = 6, 4
"""Least number of frames before and since the onset for a fit."""

_LEAST_STD, _LARGEST_DIFFERENCE_STD = 2.0, 2.0
"""Both height and width must show braking with this certainty, and their two brakings may differ by this much, in
standard deviations. Noise alone passes the first limit in 2 % of frames, and the second in 5 %."""

_LARGEST_MPS2 = 9.0
"""Full braking on a dry road, the limit for a noisy short fit."""


@dataclass(frozen=True)
class Onset:
    """An object's braking.

    Attributes:
        certainty: In standard deviations; 0 without braking.
        speed_mps: Its present speed.
        braking_mps2: Its deceleration since the onset, at least 0.
    """

    certainty: float
    speed_mps: float
    braking_mps2: float


NO_ONSET = Onset(0.0, 0.0, 0.0)


class OnsetTest:
    """The test for one object, fed frame by frame."""

    def __init__(self) -> None:
        self._rows: deque[tuple[float, float, float, float, float]] = deque()
        self._time_s = 0.0
        self._way_m = 0.0
        self._ego_speed_mps: float | None = None

    def predict(self, dt_s: float, ego: EgoMotion) -> None:
        """Advance by a time step; without ego speed, the history is cleared."""
        self._time_s += dt_s
        if ego.speed_mps is None or self._ego_speed_mps is None:
            self._rows.clear()
        else:
            self._way_m += dt_s * (ego.speed_mps + self._ego_speed_mps) / 2
        self._ego_speed_mps = ego.speed_mps

    def update(self, seen: Observation, size: ObjectSizeConfig) -> None:
        """Add a box, if all its sides belong to the object."""
        if not all(seen.known) or self._ego_speed_mps is None:
            return
        left, top, right, bottom = seen.directions[[LEFT, TOP, RIGHT, BOTTOM]].tolist()
        height, width = bottom - top, right - left
        width_std_px, height_std_px = seen.onset_std_px.tolist()
        by_height_m, by_width_m = size.height_m / height, size.width_m / width
        self._rows.append(
            (
                self._time_s,
                self._way_m + by_height_m,
                self._way_m + by_width_m,
                by_height_m * math.sqrt(2) * height_std_px / seen.height_px,
                by_width_m * math.sqrt(2) * width_std_px / seen.width_px,
            )
        )
        while self._rows[0][0] < self._time_s - SPAN_S:
            self._rows.popleft()

    def onset(self) -> Onset:
        """The most certain of the candidate onsets."""
        if not self._rows or self._rows[-1][0] - self._rows[0][0] < SPAN_S / 2:
            return NO_ONSET
        table = np.array(self._rows).T
        ago_s = self._time_s - table[0]
        onsets_s = np.array(
            [
                onset_s
                for onset_s in _ONSETS_S
                if (ago_s > onset_s).sum() >= _FEWEST_BEFORE and (ago_s < onset_s).sum() >= _FEWEST_SINCE
            ]
        )
        return _fit(ago_s, onsets_s, table[1:3], table[3:5]) if len(onsets_s) else NO_ONSET


def _fit(ago_s: Float64Array, onsets_s: Float64Array, positions_m: Float64Array, stds_m: Float64Array) -> Onset:
    """Fit constant speed until an onset and constant braking since, and choose the most certain onset.

    Weighted least squares by Gram-Schmidt orthogonalisation. Sums replace matrix products: for so few numbers, the
    threads of a linear algebra library cost more than the arithmetic.

    Args:
        ago_s: Age of each frame, FP64 [n].
        onsets_s: Candidate times since the onset, FP64 [k].
        positions_m: By height and by width, FP64 [2, n].
        stds_m: Their standard deviations, FP64 [2, n].
    """
    weights = 1 / stds_m[:, None] ** 2  # [2, 1, n]
    weights = weights / weights.mean(axis=2, keepdims=True)
    variances = (stds_m**-2).mean(axis=1) ** -1  # [2], of a frame of mean weight

    def mean(values: Float64Array) -> Float64Array:
        average: Float64Array = (weights * values).mean(axis=2, keepdims=True)
        return average

    times_s = -ago_s - mean(-ago_s)  # [2, 1, n]
    spread = mean(times_s**2)
    bends = np.clip(onsets_s[:, None] - ago_s, 0.0, None) ** 2 / 2  # [k, n]
    bends = bends - mean(bends)
    bends = bends - mean(bends * times_s) / spread * times_s  # [2, k, n]
    power = mean(bends**2)[..., 0]  # [2, k]
    brakings = -mean(bends * positions_m[:, None])[..., 0] / power
    information = power * len(ago_s) / variances[:, None]
    total = information.sum(axis=0)  # [k]
    braking_mps2 = (information * brakings).sum(axis=0) / total
    differences = np.abs(brakings[0] - brakings[1]) / np.sqrt((1 / information).sum(axis=0))
    agree = ((brakings * np.sqrt(information)).min(axis=0) >= _LEAST_STD) & (differences <= _LARGEST_DIFFERENCE_STD)
    certainties = np.where(agree, braking_mps2 * np.sqrt(total), 0.0)
    best = int(certainties.argmax())
    if certainties[best] <= 0:
        return NO_ONSET
    onset_s, strongest_mps2 = float(onsets_s[best]), min(float(braking_mps2[best]), _LARGEST_MPS2)
    bent_m = np.clip(onset_s - ago_s, 0.0, None) ** 2 / 2 * strongest_mps2
    speeds = (mean((positions_m + bent_m)[:, None] * times_s) / spread)[:, 0, 0]  # [2], until the onset
    shares = information[:, best] / total[best]
    return Onset(float(certainties[best]), max(float(shares @ speeds) - strongest_mps2 * onset_s, 0.0), strongest_mps2)
