"""The ego's predicted path."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ssd_triton.driving.braking.ego import EgoMotion

_SLOWEST_TURN_MPS = 2.0
"""Below this speed the curvature (yaw rate over speed) is mostly noise: the path is assumed to be straight."""

_TIGHTEST_RADIUS_M = 5.0
"""Half the smallest turning circle of passenger cars (about 10 m between kerbs); a tighter turn is an error."""


@dataclass(frozen=True)
class Corridor:
    """A strip along a circle through the camera, or along a straight line.

    Attributes:
        half_width_m: Half the width of a car, and a margin.
        curvature_per_m: One over the radius; positive bends to the right, 0 is straight.
    """

    half_width_m: float
    curvature_per_m: float = 0.0

    @classmethod
    def ahead_of(cls, ego: EgoMotion, half_width_m: float) -> Corridor:
        """Corridor of a car that keeps its speed and yaw rate: a circle of radius v/ω."""
        if ego.speed_mps is None or ego.yaw_rate_rad_s is None or ego.speed_mps < _SLOWEST_TURN_MPS:
            return cls(half_width_m)
        limit = 1 / _TIGHTEST_RADIUS_M
        return cls(half_width_m, min(max(-ego.yaw_rate_rad_s / ego.speed_mps, -limit), limit))

    def offset_m(self, forward_m: float, lateral_m: float) -> float:
        """Offset of a point of the road from the middle of the corridor; positive to the right."""
        if abs(self.curvature_per_m) < 1e-6:
            return lateral_m
        radius_m = 1 / self.curvature_per_m
        return radius_m - math.copysign(math.hypot(forward_m, radius_m - lateral_m), radius_m)

    def lateral_m(self, forward_m: float, offset_m: float = 0.0) -> float | None:
        """Lateral position of a line parallel to the corridor's middle; None beyond the reach of the circle."""
        if abs(self.curvature_per_m) < 1e-6:
            return offset_m
        radius_m = 1 / self.curvature_per_m
        squared = (radius_m - offset_m) ** 2 - forward_m**2
        return None if squared < 0 else radius_m - math.copysign(math.sqrt(squared), radius_m)
