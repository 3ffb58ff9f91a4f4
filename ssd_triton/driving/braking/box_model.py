"""Measurements by one box: ranges from ground contact or size alone, and all measurements for the range filter.

:mod:`ssd_triton.driving.braking.ranging` describes the state of the object and the measurement equations.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass

from ssd_triton.config import ObjectSizeConfig
from ssd_triton.driving.braking.observation import BOTTOM, LEFT, RIGHT, TOP, Observation, group_of
from ssd_triton.driving.camera import Camera

RANGE, CLOSING, BRAKING, HEIGHT_ERROR, WIDTH_ERROR, PITCH_ERROR = range(6)
"""Indices of the state vector."""

_LASTING_ERROR = math.sqrt(3)
"""Upper and lower edges can be wrong for many frames in a row, where a shadow or another car merges with a vehicle.
This part of the error does not average out. It is this factor times the relative noise of a box; both together are
twice the noise. On the KITTI drive, lower edges are off by a fifth of the height for a second."""

_SIDE_ON = math.log(1.35)
"""From this :func:`excess_width` on, a box is assumed to show the side of a vehicle, not its rear."""


@dataclass(frozen=True)
class RawRanges:
    """Ranges from one box alone, in metres; None where a needed side is unknown, or at the horizon."""

    from_ground_m: float | None
    from_size_m: float | None


def raw_ranges(seen: Observation, size: ObjectSizeConfig, camera_height_m: float) -> RawRanges:
    """Compute ranges from the ground contact alone, and from the height, or else the width, alone."""
    _, down_top, _, down_bottom = seen.directions
    left, top, right, bottom = seen.known
    ground_m = None
    if bottom and down_bottom > 0:
        ground_m = max(camera_height_m / down_bottom - size.overhang_m, 0.0)
    size_m = None
    if top and bottom:
        size_m = max(size.height_m / (down_bottom - down_top) - size.overhang_m / 2, 0.0)
    elif left and right:
        size_m = max(size.width_m / (seen.directions[RIGHT] - seen.directions[LEFT]) - size.overhang_m / 2, 0.0)
    return RawRanges(ground_m, size_m)


def excess_width(seen: Observation, size: ObjectSizeConfig) -> float:
    """Logarithm of a vehicle's aspect ratio relative to the usual one of its rear; 0 where it is unknown."""
    if group_of(seen.class_name) != "vehicle" or not all(seen.known):
        return 0.0
    return math.log(seen.width_px / seen.height_px * size.height_m / size.width_m)


def shape_spread(size: ObjectSizeConfig) -> float:
    """Relative standard deviation of the ratio of width to height within a class."""
    return math.hypot(size.height_spread, size.width_spread)


Slope = tuple[float, ...]
"""Derivatives of an expected value with respect to the 6 states."""


@dataclass(frozen=True)
class Measurement:
    """A measurement by one side of a box, or by its width.

    Attributes:
        surprises: Residuals (measured minus expected value) under each hypothesis.
        slopes: Derivatives of the expected values.
        std: Standard deviation of the measurement.
    """

    surprises: tuple[float, ...]
    slopes: tuple[Slope, ...]
    std: float

    @classmethod
    def of(cls, rows: Sequence[tuple[float, Slope]], std: float) -> Measurement:
        """Combine the surprise and slope of each hypothesis."""
        surprises, slopes = zip(*rows, strict=True)
        return cls(surprises, slopes, std)


@dataclass(frozen=True)
class BoxModel:
    """Measurement model of a box.

    Attributes:
        size: Usual size of the class.
        camera: Only its height is used.
        noise_relative: Relative part of the standard deviation of a box's sides.
    """

    size: ObjectSizeConfig
    camera: Camera
    noise_relative: float

    def measured(
        self,
        seen: Observation,
        means: Sequence[Sequence[float]],
        weights: Sequence[float],
        range_m: float,
        curvature_per_m: float,
    ) -> list[Measurement]:
        """Compare a box with what each hypothesis expects.

        Args:
            seen: The box.
            means: State under each hypothesis.
            weights: Their probabilities.
            range_m: Range over all hypotheses.
            curvature_per_m: Curvature of the corridor, which vehicles mostly follow.
        """
        left, top, right, bottom = seen.known
        found: list[Measurement] = []
        if bottom or seen.cut[BOTTOM]:
            edge_std = self._edge_std(seen) * self._doubt_of_height(seen)
            # Where the image border cuts the box, the contact lies below the border: the road there is an upper bound
            # of the range.
            direction = float(seen.directions[BOTTOM]) if bottom else seen.lowest_direction
            std = edge_std if bottom else float(seen.direction_std[BOTTOM])
            lower = Measurement.of([self._lower_edge(direction, mean) for mean in means], std)
            if bottom or sum(map(operator.mul, lower.surprises, weights)) > 0:
                found.append(lower)
            if top:
                direction = float(seen.directions[TOP])
                found.append(Measurement.of([self._upper_edge(direction, mean) for mean in means], edge_std))
        if left and right and group_of(seen.class_name) == "vehicle" and excess_width(seen, self.size) < _SIDE_ON:
            width = float(seen.directions[RIGHT] - seen.directions[LEFT])
            std = self._width_std(seen, width, range_m, curvature_per_m)
            found.append(Measurement.of([self._width(width, mean) for mean in means], std))
        return found

    def _lower_edge(self, direction: float, mean: Sequence[float]) -> tuple[float, Slope]:
        """Surprise and slope of the lower edge."""
        contact_m = mean[RANGE] + self.size.overhang_m
        expected = self.camera.height_m / contact_m
        return direction - expected - mean[PITCH_ERROR], (-expected / contact_m, 0.0, 0.0, 0.0, 0.0, 1.0)

    def _upper_edge(self, direction: float, mean: Sequence[float]) -> tuple[float, Slope]:
        """Surprise and slope of the upper edge."""
        outline_m, height_m = mean[RANGE] + self.size.overhang_m / 2, self.size.height_m * math.exp(mean[HEIGHT_ERROR])
        expected = (self.camera.height_m - height_m) / outline_m
        slope = -expected / outline_m, 0.0, 0.0, -height_m / outline_m, 0.0, 1.0
        return direction - expected - mean[PITCH_ERROR], slope

    def _width(self, width: float, mean: Sequence[float]) -> tuple[float, Slope]:
        """Surprise and slope of the width."""
        outline_m = mean[RANGE] + self.size.overhang_m / 2
        expected = self.size.width_m * math.exp(mean[WIDTH_ERROR]) / outline_m
        return width - expected, (-expected / outline_m, 0.0, 0.0, 0.0, expected, 0.0)

    def _edge_std(self, seen: Observation) -> float:
        """Standard deviation of the upper and lower edge as directions."""
        height = float(seen.directions[BOTTOM] - seen.directions[TOP])
        return math.hypot(float(seen.direction_std[TOP]), _LASTING_ERROR * self.noise_relative * height)

    def _doubt_of_height(self, seen: Observation) -> float:
        """Factor on the error of the upper and lower edge; above 1 for a box that is too high for its width.

        Detectors may include a vehicle's shadow or reflection in its box.
        """
        return max(1.0, -excess_width(seen, self.size) / shape_spread(self.size))

    def _width_std(self, seen: Observation, width: float, range_m: float, curvature_per_m: float) -> float:
        """Standard deviation of a width as a direction, from the detector's noise and a visible side of the vehicle."""
        noise = math.sqrt(2) * float(seen.direction_std[LEFT])
        turned_by = min(abs(curvature_per_m) * range_m, 1.0)
        bend = turned_by * self.size.length_m / (range_m + self.size.length_m)
        return (
            noise
            + bend
            + self._visible_side(seen, range_m)
            + width * max(excess_width(seen, self.size) - shape_spread(self.size), 0.0)
        )

    def _visible_side(self, seen: Observation, range_m: float) -> float:
        """Width that the visible side of a vehicle beside the corridor may add to its box, as a direction."""
        middle = abs(float(seen.directions[LEFT] + seen.directions[RIGHT])) / 2
        aside_m = max(middle * range_m - self.size.width_m / 2, 0.0)
        return aside_m * self.size.length_m / (range_m * (range_m + self.size.length_m))
