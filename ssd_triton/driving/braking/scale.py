"""Time to collision from the growth of the image alone.

The image of an object that approaches at constant speed grows by s'/s = 1/TTC, regardless of its size, its range and
the camera's pitch. Extended Kalman filters on the logarithms of the box's height and width estimate this rate u. At a
constant closing speed, u itself grows by u' = u². Height and width of a rigid body grow alike: any difference is an
error of the detector, and makes the rate less certain.
"""

from __future__ import annotations

import math

from ssd_triton.driving.braking.kalman import RateFilter
from ssd_triton.driving.braking.observation import Observation

_FIRST_STD = 3.0
"""Standard deviation of a logarithm before the first measurement: practically unknown."""

_RATE_STD_PER_S = 1.0
"""Standard deviation of the initial rate: that of one second to collision."""

_RATE_NOISE_PER_S = 0.15
"""Standard deviation of the rate's departure from u' = u² within a second: 2 m/s² at a range of 13 m."""

_OUTLIER_STD = 3.0
"""Beyond this many standard deviations, a measurement's weight falls with its distance."""

_LARGEST_STEP = 0.5
"""Bound on rate times time step: a box cannot double between two frames and still be the same track."""


class ScaleFilter:
    """Relative growth of one track's box.

    Args:
        seen: The first observation.
        use_width: Whether the body is rigid in width; a walking person is not.
    """

    def __init__(self, seen: Observation, *, use_width: bool) -> None:
        self._height = _growth(seen.height_px)
        self._width = _growth(seen.width_px) if use_width else None
        self.update(seen)

    @property
    def rate_per_s(self) -> float:
        """Relative growth; one over the time to collision, negative when the object moves away."""
        return self._combined()[0]

    @property
    def rate_std_per_s(self) -> float:
        """Standard deviation of :attr:`rate_per_s`."""
        return self._combined()[1]

    def predict(self, dt_s: float) -> None:
        """Advance by a time step."""
        for length in (self._height, self._width):
            if length is not None:
                length.predict_growth(dt_s, _LARGEST_STEP)

    def update(self, seen: Observation) -> None:
        """Correct by the height and width of a box, where their sides belong to the object."""
        left, top, right, bottom = seen.known
        if top and bottom:
            std = math.sqrt(2) * float(seen.size_std_px[1]) / seen.height_px
            self._height.update(math.log(seen.height_px), std, _OUTLIER_STD)
        if self._width is not None and left and right:
            std = math.sqrt(2) * float(seen.size_std_px[0]) / seen.width_px
            self._width.update(math.log(seen.width_px), std, _OUTLIER_STD)

    def _combined(self) -> tuple[float, float]:
        if self._width is None:
            return self._height.rate, math.sqrt(self._height.rate_variance)
        height_share = self._width.rate_variance / (self._width.rate_variance + self._height.rate_variance)
        width_share = 1 - height_share
        apart = self._height.rate - self._width.rate
        variance = height_share * self._height.rate_variance + height_share * width_share * apart**2
        return self._width.rate + height_share * apart, math.sqrt(variance)


def _growth(length_px: float) -> RateFilter:
    return RateFilter(math.log(length_px), _FIRST_STD, _RATE_STD_PER_S, _RATE_NOISE_PER_S)
