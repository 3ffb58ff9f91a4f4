"""The probability that avoiding an object takes more than a given deceleration.

An object is avoided when the ego, after a delay τ, brakes with constant deceleration A and never reaches it. For a
closing speed v, an ego speed e and an object at speed u = e - v that brakes by b until it stops, the needed distance
is:

    the object keeps its speed                           v·τ + v²/(2A)
    it brakes, and the ego is as slow before it stops    v·τ + b·τ²/2 + (v + b·τ)²/(2·(A - b))
    it brakes, and stops first                           e·τ + e²/(2A) - u²/(2b)

Range, closing speed and braking are uncertain. The probability of a conflict is the probability that the range is
shorter than the needed distance. It is computed at several points in closing speed and braking, and averaged over these
points and over the hypotheses on the object's motion.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import NormalDist
from typing import NamedTuple

from ssd_triton.driving.braking.hypotheses import Hypothesis

_LEAST_WEIGHT = 0.01
"""Hypotheses less probable than this are skipped to save time."""

_HARDEST_MPS2 = 50.0
"""A deceleration that no car reaches. If avoiding the object requires more, it is too late."""

_BISECTIONS = 12
"""Halvings of the interval of decelerations: to 0.01 m/s²."""

_LEAST_STD_M = 0.1
"""Lower limit of the standard deviation of a distance."""

_LEAST_STD = 1e-3
"""Lower limit for closing speed (m/s) and braking (m/s²); it only guards divisions."""

_APART = math.sqrt(3)
_SAMPLES = (
    (1 / 3, 0.0, 0.0),
    (1 / 6, _APART, 0.0),
    (1 / 6, -_APART, 0.0),
    (1 / 6, 0.0, _APART),
    (1 / 6, 0.0, -_APART),
)
"""Sample points: the weight, and the deviations of closing speed and braking in independent standard deviations. They
have the first five moments of a Gaussian (the unscented transform of Julier and Uhlmann, Proceedings of the IEEE 92,
2004)."""

_NORMAL = NormalDist()


@dataclass(frozen=True)
class Approach:
    """The ego's approach to an object, at one instant.

    Attributes:
        ego_mps: Speed of the ego.
        closing_mps: Rate at which the distance shrinks.
        braking_mps2: Deceleration of the object, at least 0.
    """

    ego_mps: float
    closing_mps: float
    braking_mps2: float = 0.0

    def needed_distance_m(self, deceleration_mps2: float, delay_s: float) -> float:
        """Distance needed to avoid a contact by a constant deceleration after a delay, at least 0.

        An object that brakes continues to do so until it is stationary.
        """
        limit_mps2, closing_mps = deceleration_mps2, self.closing_mps
        object_mps = self.ego_mps - closing_mps
        braking_mps2 = self.braking_mps2 if object_mps > 0 else 0.0
        if braking_mps2 > 0:
            stands_after_s = object_mps / braking_mps2
            then_mps, relative_mps2 = closing_mps + braking_mps2 * delay_s, limit_mps2 - braking_mps2
            if relative_mps2 <= 0 or delay_s + max(then_mps, 0.0) / relative_mps2 >= stands_after_s:
                to_stop_m = self.ego_mps * delay_s + self.ego_mps**2 / (2 * limit_mps2)
                return max(to_stop_m - object_mps * stands_after_s / 2, 0.0)
        else:
            then_mps, relative_mps2 = closing_mps, limit_mps2
        if then_mps <= 0:
            return 0.0
        driven_m = closing_mps * delay_s + braking_mps2 * delay_s**2 / 2
        return max(driven_m + then_mps**2 / (2 * relative_mps2), 0.0)


class _Point(NamedTuple):
    """A sample of the object's motion: its weight, the approach, and mean and standard deviation of the distance."""

    weight: float
    approach: Approach
    distance_m: float
    std_m: float


@dataclass(frozen=True)
class Conflict:
    """The estimated motion of one object, and what avoiding it requires.

    Attributes:
        hypotheses: Hypotheses on its motion.
        front_overhang_m: From the camera to the front bumper.
        ego_mps: Speed of the ego.
    """

    hypotheses: Sequence[Hypothesis]
    front_overhang_m: float
    ego_mps: float

    def probability(self, deceleration_mps2: float, delay_s: float) -> float:
        """Probability that avoiding the object requires at least this deceleration after a delay."""
        return sum(
            point.weight
            * _NORMAL.cdf(
                (point.approach.needed_distance_m(deceleration_mps2, delay_s) - point.distance_m) / point.std_m
            )
            for point in self._points
        )

    def required_deceleration_mps2(self, probability: float, delay_s: float) -> float:
        """Deceleration that avoiding the object requires with this probability; infinite when it is too late."""
        if probability > 1:
            return 0.0
        low, high = 0.0, _HARDEST_MPS2
        if self.probability(high, delay_s) >= probability:
            return math.inf
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2
            if self.probability(middle, delay_s) >= probability:
                low = middle
            else:
                high = middle
        return low

    def closing(self, speed_mps: float) -> float:
        """Probability that the object closes in faster than a speed."""
        return sum(
            item.weight
            * _NORMAL.cdf((item.closing_mps - speed_mps) / max(math.sqrt(max(item.covariance[1][1], 0.0)), _LEAST_STD))
            for item in self.hypotheses
        )

    @cached_property
    def _points(self) -> tuple[_Point, ...]:
        """Sample points of all hypotheses.

        The needed distance is not linear in closing speed and braking where the object begins to brake or stops.
        """
        return tuple(
            point for item in self.hypotheses if item.weight >= _LEAST_WEIGHT for point in self._points_of(item)
        )

    def _points_of(self, item: Hypothesis) -> Iterator[_Point]:
        (variance, with_closing, with_braking), (_, of_closing, both), (_, _, of_braking) = item.covariance
        closing_std = max(math.sqrt(max(of_closing, 0.0)), _LEAST_STD)
        braking_by_closing = both / closing_std
        braking_std = max(math.sqrt(max(of_braking - braking_by_closing**2, 0.0)), _LEAST_STD)
        range_by_closing = with_closing / closing_std
        range_by_braking = (with_braking - range_by_closing * braking_by_closing) / braking_std
        std_m = max(math.sqrt(max(variance - range_by_closing**2 - range_by_braking**2, 0.0)), _LEAST_STD_M)
        for weight, closing, braking in _SAMPLES:
            approach = Approach(
                self.ego_mps,
                item.closing_mps + closing * closing_std,
                max(item.braking_mps2 + closing * braking_by_closing + braking * braking_std, 0.0),
            )
            range_m = item.range_m + closing * range_by_closing + braking * range_by_braking
            yield _Point(item.weight * weight, approach, max(range_m - self.front_overhang_m, 0.0), std_m)
