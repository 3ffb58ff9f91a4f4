"""Whether an object is in the way: in the ego's corridor, or about to enter it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ssd_triton.driving.braking.corridor import Corridor
from ssd_triton.driving.braking.track import Track

_LONGEST_FORESIGHT_S = 4.0
"""Longest extrapolation of an object's lateral motion: in Euro NCAP's pedestrian scenarios, the target becomes visible
4 s before the collision."""

_WARN_DOUBT, _BRAKE_DOUBT = 0.25, 0.25
_VEHICLE_WARN_DOUBT, _VEHICLE_BRAKE_DOUBT = 1.0, 1.6
"""Margin, in standard deviations of the offset, by which an object must be within the limit to count as in the
corridor, or as about to enter it. Vehicles beside the corridor mostly stay there; people who walk towards it mostly
walk on."""

_RANGE_DOUBT = 2.0
"""Weight of the range error in the offset: in a bend it shifts the offset, more like a bias than like noise."""

_BESIDE_M = 2.5
"""Vehicles are expected to enter the corridor from at most this far beside it, the adjacent lane. Vehicles farther away
that seem to cross mostly follow a bend that the ego has not reached."""

SETTLED_S = 0.5
"""A vehicle must have been tracked this long before its lateral motion is trusted. A vehicle that may be stationary
must have been in the corridor this long before it causes a warning: while the ego turns, the corridor sweeps over
vehicles parked beside the road."""

STANDS_ABOVE, MAY_STAND_ABOVE = 0.5, 0.1
"""Probabilities that a vehicle is stationary. Above the first, it is not expected to enter the corridor. (Nor are
oncoming vehicles: they follow their lane.) Above the second, it must have stayed in the corridor before it causes a
warning."""

_CLEAR_BY_M = 0.5
"""An object that leaves the corridor is out of the way if it will be this far beside it."""


@dataclass(frozen=True)
class Way:
    """An object's relation to the corridor.

    Attributes:
        probability: Probability that it is in the corridor, or will be when the ego gets there.
        likely: Whether it counts as in the corridor for WARN.
        surely: The same for BRAKE.
    """

    probability: float
    likely: bool
    surely: bool


def way_of(track: Track, ttc_s: float | None, corridor: Corridor) -> Way:
    """Whether an object reaches into the corridor now without leaving it, or will when the ego gets there.

    Args:
        track: The object.
        ttc_s: Time until the ego gets there; None for never.
        corridor: The ego's corridor.
    """
    vehicle = track.group == "vehicle"
    by_range_m = _RANGE_DOUBT * track.offset_std_by_range_m(corridor)
    limit_m = corridor.half_width_m + track.size.width_m / 2
    now_m, now_std_m = track.offset.foresee(0.0)
    then_m, then_std_m = track.offset.foresee(min(ttc_s or 0.0, _LONGEST_FORESIGHT_S))
    now_std_m, then_std_m = math.hypot(now_std_m, by_range_m), math.hypot(then_std_m, by_range_m)
    stays = abs(then_m) <= limit_m + _CLEAR_BY_M
    settled = track.last_seen_s - track.first_s >= SETTLED_S and abs(now_m) <= limit_m + _BESIDE_M
    may_enter = not vehicle or (settled and track.range.standing <= STANDS_ABOVE and not track.range.is_oncoming)

    def counts(doubt: float) -> bool:
        if abs(now_m) + doubt * now_std_m <= limit_m:
            return stays
        return may_enter and abs(then_m) + doubt * then_std_m <= limit_m

    likely, surely = (_VEHICLE_WARN_DOUBT, _VEHICLE_BRAKE_DOUBT) if vehicle else (_WARN_DOUBT, _BRAKE_DOUBT)
    inside = _within(limit_m, now_m, now_std_m) if stays else 0.0
    enters = _within(limit_m, then_m, then_std_m) if may_enter else 0.0
    return Way(max(inside, enters), counts(likely), counts(surely))


def _within(limit: float, mean: float, std: float) -> float:
    """Probability that a value lies within plus and minus a limit."""
    scale = math.sqrt(2) * max(std, 1e-3)
    return (math.erf((limit - mean) / scale) + math.erf((limit + mean) / scale)) / 2
