"""What one box says: ranges from its ground contact and its size alone, and all its measurements together.

The state of the object, and what the sides of its box measure of it, are described in
:mod:`ssd_triton.driving.braking.ranging`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ssd_triton.common.arrays import Float64Array
from ssd_triton.config import ObjectSizeConfig
from ssd_triton.driving.braking.observation import BOTTOM, LEFT, RIGHT, TOP, Observation, group_of
from ssd_triton.driving.camera import Camera

RANGE, CLOSING, BRAKING, HEIGHT_ERROR, WIDTH_ERROR, PITCH_ERROR = range(6)
"""The state."""

_LASTING_ERROR = math.sqrt(3)
"""Upper and lower edges err for many frames alike, where a shadow or the next car merges with a vehicle. That part of
their error does not average out, and exceeds the relative noise of a box by this factor: both together are twice the
noise. On the KITTI drive, lower edges are off by a fifth of the height for a second."""

_SIDE_ON = math.log(1.35)
"""A box wider than usual for its height by this factor shows the side of a vehicle, and not its rear."""


@dataclass(frozen=True)
class RawRanges:
    """Ranges from one box alone, in metres; None where a border cuts off the needed sides, or at the horizon."""

    from_ground_m: float | None
    from_size_m: float | None


def raw_ranges(seen: Observation, size: ObjectSizeConfig, camera_height_m: float) -> RawRanges:
    """Ranges from the ground contact alone, and from the size alone: the height, or else the width."""
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


@dataclass(frozen=True)
class BoxModel:
    """What the sides of a box measure.

    Attributes:
        size: Usual size of the class.
        camera: Its height is used.
        noise_relative: Relative part of the standard deviation of a box's sides.
    """

    size: ObjectSizeConfig
    camera: Camera
    noise_relative: float

    def measured(
        self, seen: Observation, means: Float64Array, weights: Float64Array, range_m: float, curvature_per_m: float
    ) -> tuple[Float64Array, Float64Array, Float64Array]:
        """Compare a box with what each hypothesis expects.

        Args:
            seen: The box.
            means: State of each hypothesis, FP64 [n, 6].
            weights: Their probabilities, FP64 [n].
            range_m: Range over all hypotheses.
            curvature_per_m: Curvature of the corridor, which vehicles mostly follow.

        Returns:
            Surprises FP64 [n, m], slopes FP64 [n, m, 6] and standard deviations FP64 [m] of m measurements.
        """
        left, top, right, bottom = seen.known
        ranges_m, size = means[:, RANGE], self.size
        outline_m, pitch = ranges_m + size.overhang_m / 2, means[:, PITCH_ERROR]
        surprises: list[Float64Array] = []
        stds: list[float] = []
        slopes = np.zeros((len(means), 3, 6))
        doubt = self._doubt_of_height(seen)
        if bottom or seen.cut[BOTTOM]:
            # Where the image cuts the box, the contact lies below it: nearer than the road at the image's border.
            direction = float(seen.directions[BOTTOM]) if bottom else seen.lowest_direction
            expected = self.camera.height_m / (ranges_m + size.overhang_m)
            surprise = direction - expected - pitch
            if bottom or surprise @ weights > 0:
                slopes[:, len(stds), RANGE] = -expected / (ranges_m + size.overhang_m)
                slopes[:, len(stds), PITCH_ERROR] = 1.0
                surprises.append(surprise)
                stds.append(self._edge_std(seen) * doubt if bottom else float(seen.direction_std[BOTTOM]))
            if top:
                height_m = size.height_m * np.exp(means[:, HEIGHT_ERROR])
                below_camera_m = self.camera.height_m - height_m
                slopes[:, len(stds), RANGE] = -below_camera_m / outline_m**2
                slopes[:, len(stds), HEIGHT_ERROR] = -height_m / outline_m
                slopes[:, len(stds), PITCH_ERROR] = 1.0
                surprises.append(float(seen.directions[TOP]) - below_camera_m / outline_m - pitch)
                stds.append(self._edge_std(seen) * doubt)
        if left and right and group_of(seen.class_name) == "vehicle" and excess_width(seen, size) < _SIDE_ON:
            width = float(seen.directions[RIGHT] - seen.directions[LEFT])
            expected = size.width_m * np.exp(means[:, WIDTH_ERROR]) / outline_m
            slopes[:, len(stds), RANGE] = -expected / outline_m
            slopes[:, len(stds), WIDTH_ERROR] = expected
            surprises.append(width - expected)
            stds.append(self._width_std(seen, width, range_m, curvature_per_m))
        return np.array(surprises).T, slopes[:, : len(stds)], np.array(stds)

    def _edge_std(self, seen: Observation) -> float:
        """Standard deviation of the upper and lower edge as directions."""
        height = float(seen.directions[BOTTOM] - seen.directions[TOP])
        return math.hypot(float(seen.direction_std[TOP]), _LASTING_ERROR * self.noise_relative * height)

    def _doubt_of_height(self, seen: Observation) -> float:
        """Factor on the error of the upper and lower edge of a box that is too high for its width.

        Detectors mistake a vehicle's shadow or reflection for a part of it.
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
