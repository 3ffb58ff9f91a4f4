"""The probability that avoiding an object takes more than a given deceleration.

An object is avoided when the ego, after a delay, brakes with constant deceleration A and never reaches it. That takes a
distance, for a closing speed v, an ego speed e and an object at speed u = e - v that brakes by b until it stands:

    the object keeps its speed     v·τ + v²/(2A)
    the ego is slower before       v·τ + b·τ²/2 + (v + b·τ)²/(2·(A - b))
    the object stands before       e·τ + e²/(2A) - u²/(2b)

Range, closing speed and braking are uncertain, and so is the difference between the distance and what it takes. The
probability of a conflict follows from its mean and standard deviation, to first order, weighted over the hypotheses on
the object's motion.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

from ssd_triton.driving.braking.hypotheses import Hypothesis

_LEAST_WEIGHT = 0.01
"""Hypotheses less probable than this are not worth the arithmetic."""

_HARDEST_MPS2 = 50.0
"""A deceleration that no car reaches: what takes more is too late."""

_BISECTIONS = 12
"""Halvings of the interval of decelerations: to 0.01 m/s²."""

_LEAST_STD_M = 0.1
"""No distance is known better."""

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


@dataclass(frozen=True)
class Conflict:
    """What is known of one object, and what avoiding it takes.

    Attributes:
        hypotheses: Its motion.
        front_overhang_m: From the camera to the front bumper.
        ego_mps: Speed of the ego.
    """

    hypotheses: Sequence[Hypothesis]
    front_overhang_m: float
    ego_mps: float

    def probability(self, deceleration_mps2: float, delay_s: float) -> float:
        """Probability that avoiding the object takes at least a deceleration after a delay."""
        return sum(
            item.weight * self._probability(item, deceleration_mps2, delay_s)
            for item in self.hypotheses
            if item.weight >= _LEAST_WEIGHT
        )

    def required_deceleration_mps2(self, probability: float, delay_s: float) -> float:
        """The deceleration that avoiding the object takes at least, with a probability; infinite when too late."""
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
            * _NORMAL.cdf((item.closing_mps - speed_mps) / max(math.sqrt(max(item.covariance[1][1], 0.0)), 1e-3))
            for item in self.hypotheses
        )

    def _probability(self, item: Hypothesis, deceleration_mps2: float, delay_s: float) -> float:
        def needed_m(closing_mps: float, braking_mps2: float) -> float:
            return Approach(self.ego_mps, closing_mps, max(braking_mps2, 0.0)).needed_distance_m(
                deceleration_mps2, delay_s
            )

        closing_mps, braking_mps2, covariance = item.closing_mps, item.braking_mps2, item.covariance
        distance_m = max(item.range_m - self.front_overhang_m, 0.0)
        closing_std_mps = max(math.sqrt(max(covariance[1][1], 0.0)), 1e-3)
        braking_std_mps2 = max(math.sqrt(max(covariance[2][2], 0.0)), 1e-3)
        by_closing_s = (
            needed_m(closing_mps + closing_std_mps, braking_mps2)
            - needed_m(closing_mps - closing_std_mps, braking_mps2)
        ) / (2 * closing_std_mps)
        by_braking_s2 = (
            needed_m(closing_mps, braking_mps2 + braking_std_mps2)
            - needed_m(closing_mps, braking_mps2 - braking_std_mps2)
        ) / (2 * braking_std_mps2)
        variance_m2 = (
            covariance[0][0]
            - 2 * (by_closing_s * covariance[0][1] + by_braking_s2 * covariance[0][2])
            + by_closing_s * (by_closing_s * covariance[1][1] + 2 * by_braking_s2 * covariance[1][2])
            + by_braking_s2**2 * covariance[2][2]
        )
        std_m = max(math.sqrt(max(variance_m2, 0.0)), _LEAST_STD_M)
        return _NORMAL.cdf((needed_m(closing_mps, braking_mps2) - distance_m) / std_m)
