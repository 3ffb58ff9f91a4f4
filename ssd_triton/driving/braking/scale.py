"""Time to collision from the growth of the image alone.

An object that comes nearer at a constant speed grows by s'/s = 1/TTC, whatever its size, its range and the camera's
pitch are. That rate is estimated by extended Kalman filters on the logarithms of the box's height and width. For a
constant closing speed the rate u itself grows by u' = u². Of a rigid body both must grow alike: as far as they do not,
it is not the object that grows but the detector that errs, and the rate is the less certain.
"""

from __future__ import annotations

import math

from ssd_triton.driving.braking.kalman import RateFilter
from ssd_triton.driving.braking.observation import Observation

_FIRST_STD = 3.0
"""Of a logarithm before the first measurement: nothing is known."""

_RATE_STD_PER_S = 1.0
"""What rates to expect at first: that of one second to collision."""

_RATE_NOISE_PER_S = 0.15
"""By how much the rate departs from u' = u² within a second: 2 m/s² at a range of 13 m."""

_OUTLIER_STD = 3.0
"""Measurements farther off than so many standard deviations are trusted the less, the farther off they are."""

_LARGEST_STEP = 0.5
"""Bound on rate times time step: a box cannot double between two frames and still be the same track."""


class ScaleFilter:
    """Relative growth of one track's box.

    Args:
        seen: The first observation.
        use_width: Whether the width is that of a rigid body; a walking person's is not.
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
        """Move on by a time."""
        for length in (self._height, self._width):
            if length is not None:
                length.predict_growth(dt_s, _LARGEST_STEP)

    def update(self, seen: Observation) -> None:
        """Take in the height and the width of a box, as far as they are the object's own."""
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
