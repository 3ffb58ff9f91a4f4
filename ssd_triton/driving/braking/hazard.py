"""The state that one object demands in one frame.

With a known ego speed, the measure is the deceleration required to avoid the object, starting after the system's
latency and the brakes' reaction: v²/2d for a closing speed v and the remaining distance d, or more if the object
itself brakes. BRAKE is due when it reaches ``deceleration_mps2``, and WARN when it will do so within
``warning_lead_time_s``. Without ego speed, the time to collision from image scale must fall below ``ttc_brake_s``.

Two estimates of the closing rate, from range and from image scale, check each other. Where they agree within their
noise, the estimate from range decides: it is less noisy and uses the ego speed. Where they disagree, the more urgent
one may warn, but BRAKE needs both: a false warning is a nuisance, false emergency braking endangers the traffic behind.
For the same reason BRAKE needs a certain closing speed, so that a new track cannot brake before its speed is known.
WARN uses the closing speed plus its standard deviation, once the closing speed is likely.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from ssd_triton.common.units import KMH_PER_MPS
from ssd_triton.config import BrakingConfig
from ssd_triton.driving.braking.corridor import Corridor
from ssd_triton.driving.braking.decision import Cause, CauseKind, TrackedObject
from ssd_triton.driving.braking.ego import EgoMotion
from ssd_triton.driving.braking.onset import NO_ONSET, Onset
from ssd_triton.driving.braking.ranging import LONGEST_UNMEASURED_S
from ssd_triton.driving.braking.state import State
from ssd_triton.driving.braking.track import Track
from ssd_triton.driving.camera import RoadPoint

_LEAST_CLOSING_MPS = 0.3
"""Lower closing speeds are noise: a bump at 1 km/h does not justify emergency braking."""

_DISAGREEMENT_STD, _DISAGREEMENT_RATIO = 2.0, 0.3
"""Closing rates disagree when their difference exceeds this many of its standard deviations, and this share of the
larger rate."""

_CERTAIN_STD, _LIKELY_STD = 2.0, 0.75
"""A closing speed above this many of its standard deviations is certain, or likely. At town speeds, the initial guess
for a new object (half the ego's speed, with a standard deviation of 10 m/s) is neither."""

_DRIVING_MPS, _HARD_BRAKING_MPS2, _HARD_BRAKING_STD = 2.0, 1.5, 3.5
"""An object faster than walking pace is driving. Its braking is hard when it exceeds that of usual traffic (Euro NCAP's
CCRb has 2 and 6 m/s²) with this certainty of the onset test, in standard deviations. In 10 s of steady following, 2 px
of noise in each side of a box often raise the certainty to 3, and hardly ever to 4."""

_LONGEST_FORESIGHT_S = 4.0
"""Longest extrapolation of an object's lateral motion: in Euro NCAP's pedestrian scenarios, the target becomes visible
4 s before the collision."""

_WARN_DOUBT, _BRAKE_DOUBT = 0.0, 0.25
_VEHICLE_WARN_DOUBT, _VEHICLE_BRAKE_DOUBT = 0.5, 2.0
"""An object counts as in the corridor, or about to enter it, by this many standard deviations of its offset. Vehicles
beside the corridor mostly stay there; people who walk towards it mostly walk on."""

_RANGE_DOUBT = 2.0
"""Weight of the range's error in the offset: in a bend it shifts the offset, as a bias more than as noise."""

_BESIDE_M = 2.5
"""Vehicles enter the corridor from up to this far beside it, the adjacent lane. Those farther away that seem to cross
mostly follow a bend that the ego has not reached yet."""

_SETTLED_S = 0.5
"""A vehicle must have been tracked this long before its lateral motion is trusted."""

_CLEAR_BY_M = 0.5
"""An object that leaves the corridor is out of the way if it will be this far beside it."""


@dataclass(frozen=True)
class Hazard:
    """The state that an object demands.

    Attributes:
        item: The object.
        wanted: SAFE, WARN or BRAKE.
        kept: The same by the lower thresholds for leaving a state.
        urgent: Whether BRAKE cannot wait for a warning.
        required_deceleration_mps2: As in :class:`~ssd_triton.driving.braking.decision.FrameDecision`; None without ego
            speed.
        reason: Explanation with figures.
        cause: What calls for ``wanted``; None for SAFE.
    """

    item: TrackedObject
    wanted: State
    kept: State
    urgent: bool
    required_deceleration_mps2: float | None
    reason: str
    cause: Cause | None

    @property
    def urgency(self) -> tuple[State, State, float, float]:
        """Sort key: the hazard with the greatest urgency is reported."""
        ttc_s = math.inf if self.item.ttc_s is None else self.item.ttc_s
        return self.wanted, self.kept, -ttc_s, -self.item.range_m


@dataclass(frozen=True)
class Approach:
    """The ego's approach to an object, at one instant.

    Attributes:
        distance_m: From bumper to object.
        ego_mps: Speed of the ego.
        closing_mps: Rate at which the distance shrinks.
        braking_mps2: Deceleration of the object, at least 0.
    """

    distance_m: float
    ego_mps: float
    closing_mps: float
    braking_mps2: float = 0.0

    def required_deceleration_mps2(self, delay_s: float) -> float:
        """Least constant deceleration after a delay that avoids a contact; infinite when it is too late.

        An object that brakes continues to do so until it is stationary.
        """
        object_mps = self.ego_mps - self.closing_mps
        if object_mps > 0 and self.braking_mps2 > 0:
            stands_after_s = object_mps / self.braking_mps2
            stops_within_m = self.distance_m + object_mps * stands_after_s / 2 - self.ego_mps * delay_s
            to_stop = math.inf if stops_within_m <= 0 else self.ego_mps**2 / (2 * stops_within_m)
            if delay_s >= stands_after_s or delay_s + self.ego_mps / max(to_stop, 1e-9) >= stands_after_s:
                return to_stop
        braking_mps2 = self.braking_mps2 if object_mps > 0 else 0.0
        closing_mps = self.closing_mps + braking_mps2 * delay_s
        left_m = self.distance_m - self.closing_mps * delay_s - braking_mps2 * delay_s**2 / 2
        if closing_mps <= 0:
            return 0.0
        return math.inf if left_m <= 0 else braking_mps2 + closing_mps**2 / (2 * left_m)


def describe_track(
    track: Track, time_s: float, ego: EgoMotion, corridor: Corridor, settings: BrakingConfig
) -> TrackedObject:
    """Describe a track: its range, speeds, times to collision and relation to the corridor."""
    ranging, offset, raw = track.range, track.offset, track.raw
    distance_m = max(ranging.range_m - settings.front_overhang_m, 0.0)
    ttc_range_s = _ttc_s(distance_m, ranging.closing_speed_mps)
    ttc_scale_s = _ttc_s(distance_m, track.scale.rate_per_s * ranging.outline_range_m)
    disagreement, vehicle = _disagree(track), track.group == "vehicle"
    if ego.speed_mps is None:
        ttc_s = ttc_scale_s
    elif disagreement:
        ttc_s = None if ttc_range_s is None or ttc_scale_s is None else max(ttc_range_s, ttc_scale_s)
    else:
        ttc_s = ttc_range_s
    left, top, right, bottom = (float(side) for side in track.seen.box_xyxy)
    by_range_m = _RANGE_DOUBT * track.offset_std_by_range_m(corridor)
    likely, surely = (_VEHICLE_WARN_DOUBT, _VEHICLE_BRAKE_DOUBT) if vehicle else (_WARN_DOUBT, _BRAKE_DOUBT)
    return TrackedObject(
        track_id=track.track_id,
        class_name=track.class_name,
        box_xyxy=(left, top, right, bottom),
        score=track.seen.score,
        position=RoadPoint(ranging.range_m, track.lateral_m),
        range_m=ranging.range_m,
        range_std_m=ranging.range_std_m,
        range_from_ground_m=raw.from_ground_m,
        range_from_size_m=raw.from_size_m,
        closing_speed_mps=ranging.closing_speed_mps,
        closing_speed_std_mps=ranging.closing_speed_std_mps,
        lateral_speed_mps=offset.rate,
        offset_m=offset.value,
        width_m=track.size.width_m,
        ttc_range_s=ttc_range_s,
        ttc_scale_s=ttc_scale_s,
        ttc_s=ttc_s,
        disagreement=disagreement,
        in_corridor=_is_in_the_way(track, ttc_range_s, corridor, by_range_m, likely),
        surely_in_corridor=_is_in_the_way(track, ttc_range_s, corridor, by_range_m, surely),
        age_s=time_s - track.first_s,
        unseen_s=time_s - track.last_seen_s,
    )


def assess(track: Track, item: TrackedObject, ego: EgoMotion, settings: BrakingConfig, delay_s: float) -> Hazard:
    """Decide which state an object demands.

    Args:
        track: The track.
        item: Its description by :func:`describe_track`.
        ego: The ego's motion.
        settings: Thresholds.
        delay_s: From the camera's exposure until the brakes act.
    """
    distance_m = max(item.range_m - settings.front_overhang_m, 0.0)
    estimates = _closing_estimates(track, ego, item)
    required = None
    if ego.speed_mps is not None:
        required = min(
            Approach(distance_m, ego.speed_mps, closing.speed_mps, closing.braking_mps2).required_deceleration_mps2(
                delay_s
            )
            for closing in estimates
        )

    def level(ratio: float, *, in_corridor: bool) -> State:
        """The state demanded with every threshold multiplied by a ratio."""
        thresholds = _Thresholds(settings, ego.speed_mps, delay_s, ratio)
        if in_corridor and _brakes_hard(onset, ego, ratio):
            at_braking_ratio = replace(thresholds, ratio=ratio * settings.braking_ratio)
            if at_braking_ratio.level(distance_m, _closing_by_onset(onset, ego)) is State.BRAKE:
                return State.BRAKE
        levels = [thresholds.level(distance_m, closing) for closing in estimates]
        return State.BRAKE if min(levels) is State.BRAKE and in_corridor else min(max(levels), State.WARN)

    is_stationary = ego.speed_mps is not None and ego.speed_mps < _LEAST_CLOSING_MPS
    in_way = item.in_corridor and not is_stationary and track.range.unmeasured_s <= LONGEST_UNMEASURED_S
    onset = track.onset_test.onset() if in_way and track.group == "vehicle" else NO_ONSET
    surely = item.surely_in_corridor
    corridor_m = settings.corridor_half_width_m + item.width_m / 2
    wanted = level(1.0, in_corridor=surely) if in_way else State.SAFE
    cause = None
    if wanted > State.SAFE:
        by_scale = ego.speed_mps is None
        kind: CauseKind = "scale" if by_scale else "lateral" if abs(item.offset_m) > corridor_m else "range"
        figure = _Thresholds(settings, ego.speed_mps, delay_s, 1.0)
        braking, onset_calls = wanted is State.BRAKE, False
        if braking and min(figure.level(distance_m, closing) for closing in estimates) is not State.BRAKE:
            kind, onset_calls = "onset", True
        ahead_s = 0.0 if braking else settings.warning_lead_time_s
        closings = [_closing_by_onset(onset, ego)] if onset_calls else estimates
        values = [figure.figure(distance_m, closing, ahead_s, high=not braking) for closing in closings]
        cause = Cause(
            wanted,
            item.age_s,
            item.track_id,
            item.class_name,
            kind,
            (max if by_scale == braking else min)(values) if braking or by_scale else max(values),
            figure.limit(ahead_s) * (settings.braking_ratio if onset_calls else 1.0),
            "s" if by_scale else "m/s²",
            ahead_s,
            item.range_m,
            item.closing_speed_mps,
        )
    urgently = _brakes_hard(onset, ego, 1.0) or level(settings.urgent_ratio, in_corridor=surely) is State.BRAKE
    return Hazard(
        item=item,
        wanted=wanted,
        kept=max(wanted, level(settings.release_ratio, in_corridor=True)) if in_way else State.SAFE,
        urgent=wanted is State.BRAKE and urgently,
        required_deceleration_mps2=required,
        reason=_reason(item, required, delay_s),
        cause=cause,
    )


@dataclass(frozen=True)
class _Closing:
    """One of the two estimates of an object's closing speed.

    Attributes:
        speed_mps: Closing speed.
        high_speed_mps: Closing speed plus its standard deviation.
        certainty: Closing speed in its standard deviations.
        braking_mps2: Deceleration of the object, at least 0.
    """

    speed_mps: float
    high_speed_mps: float
    certainty: float
    braking_mps2: float = 0.0


def _closing_estimates(track: Track, ego: EgoMotion, item: TrackedObject) -> list[_Closing]:
    """The estimates of the closing speed to use: one, or both where they disagree."""
    ranging, scale = track.range, track.scale
    by_scale = _closing(scale.rate_per_s * ranging.outline_range_m, scale.rate_std_per_s * ranging.outline_range_m, ego)
    if ego.speed_mps is None:
        return [by_scale]
    braking_mps2 = max(ranging.braking_mps2, 0.0)
    by_range = _closing(ranging.closing_speed_mps, ranging.closing_speed_std_mps, ego, braking_mps2)
    return [by_range, by_scale] if item.disagreement else [by_range]


def _brakes_hard(onset: Onset, ego: EgoMotion, ratio: float) -> bool:
    """Whether a driving object brakes too hard for a warning in time.

    Args:
        onset: The onset of its braking.
        ego: The ego's motion.
        ratio: Factor on the thresholds.
    """
    drives = ego.speed_mps is not None and onset.speed_mps > _DRIVING_MPS
    return drives and onset.certainty > ratio * _HARD_BRAKING_STD and onset.braking_mps2 > ratio * _HARD_BRAKING_MPS2


def _closing_by_onset(onset: Onset, ego: EgoMotion) -> _Closing:
    closing_mps = (ego.speed_mps or 0.0) - onset.speed_mps
    return _Closing(closing_mps, closing_mps, onset.certainty, onset.braking_mps2)


def _closing(speed_mps: float, std_mps: float, ego: EgoMotion, braking_mps2: float = 0.0) -> _Closing:
    # An object in the corridor is stationary or drives in the ego's direction, unless it is certainly oncoming.
    ego_mps = math.inf if ego.speed_mps is None else ego.speed_mps
    highest_mps = ego_mps if speed_mps - ego_mps < _CERTAIN_STD * std_mps else speed_mps
    return _Closing(
        speed_mps=min(speed_mps, highest_mps),
        high_speed_mps=min(speed_mps + std_mps, highest_mps),
        certainty=speed_mps / std_mps,
        braking_mps2=braking_mps2,
    )


@dataclass(frozen=True)
class _Thresholds:
    """The thresholds of BRAKE and WARN, multiplied by a ratio."""

    settings: BrakingConfig
    ego_mps: float | None
    delay_s: float
    ratio: float

    def level(self, distance_m: float, closing: _Closing) -> State:
        """The state that an object demands by one estimate."""
        if closing.speed_mps < _LEAST_CLOSING_MPS:
            return State.SAFE
        certain = closing.certainty > _CERTAIN_STD * min(self.ratio, 1.0)
        if certain and self._is_due(distance_m, closing, 0.0, high=False):
            return State.BRAKE
        lead_s = self.settings.warning_lead_time_s
        likely = closing.certainty > _LIKELY_STD * min(self.ratio, 1.0)
        soon = likely and self._is_due(distance_m, closing, lead_s, high=True)
        return State.WARN if soon else State.SAFE

    def limit(self, ahead_s: float) -> float:
        """The limit in force: m/s², or s to collision without ego speed."""
        if self.ego_mps is None:
            return self.delay_s + ahead_s + self.settings.ttc_brake_s / self.ratio
        return self.settings.deceleration_mps2 * self.ratio

    def figure(self, distance_m: float, closing: _Closing, ahead_s: float, *, high: bool) -> float:
        """The figure that the limit is for."""
        closing_mps = closing.high_speed_mps if high else closing.speed_mps
        if self.ego_mps is None:
            return distance_m / closing_mps
        approach = Approach(distance_m, self.ego_mps, closing_mps, closing.braking_mps2)
        return approach.required_deceleration_mps2(self.delay_s + ahead_s)

    def _is_due(self, distance_m: float, closing: _Closing, ahead_s: float, *, high: bool) -> bool:
        """Whether the threshold of BRAKE will be reached within a time."""
        figure, limit = self.figure(distance_m, closing, ahead_s, high=high), self.limit(ahead_s)
        return figure <= limit if self.ego_mps is None else figure >= limit


def _ttc_s(distance_m: float, closing_mps: float) -> float | None:
    return distance_m / closing_mps if closing_mps > _LEAST_CLOSING_MPS else None


def _disagree(track: Track) -> bool:
    """Whether the closing rates from range and from image scale differ by more than noise explains."""
    by_range, by_scale = track.range.closing_rate_per_s, track.scale.rate_per_s
    difference = abs(by_range - by_scale)
    noise = math.hypot(track.range.closing_rate_std_per_s, track.scale.rate_std_per_s)
    larger = max(abs(by_range), abs(by_scale))
    return difference > _DISAGREEMENT_STD * noise and difference > _DISAGREEMENT_RATIO * larger


def _is_in_the_way(track: Track, ttc_s: float | None, corridor: Corridor, by_range_m: float, doubt: float) -> bool:
    """Whether an object reaches into the corridor now without leaving it, or will when the ego gets there.

    Args:
        track: The object.
        ttc_s: Time until the ego gets there; None for never.
        corridor: The ego's corridor.
        by_range_m: Weighted error of the offset that comes from the range's.
        doubt: Number of standard deviations of the offset by which it must do so.
    """
    limit_m = corridor.half_width_m + track.size.width_m / 2
    now_m, now_std_m = track.offset.foresee(0.0)
    then_m, then_std_m = track.offset.foresee(min(ttc_s or 0.0, _LONGEST_FORESIGHT_S))
    if abs(now_m) + doubt * math.hypot(now_std_m, by_range_m) <= limit_m:
        return abs(then_m) <= limit_m + _CLEAR_BY_M
    settled = track.last_seen_s - track.first_s >= _SETTLED_S and abs(now_m) <= limit_m + _BESIDE_M
    if track.group == "vehicle" and not settled:
        return False
    return abs(then_m) + doubt * math.hypot(then_std_m, by_range_m) <= limit_m


def _reason(item: TrackedObject, required_mps2: float | None, delay_s: float) -> str:
    """Explain a hazard: the object, its approach, and the deceleration required to avoid it."""
    what = f"{item.class_name} at {item.range_m:.1f} m"
    if item.unseen_s > 0:
        what += f" (not seen for {item.unseen_s:.1f} s)"
    if item.closing_speed_mps <= _LEAST_CLOSING_MPS:
        return f"{what}, not closing in"
    text = f"{what}, closing at {item.closing_speed_mps * KMH_PER_MPS:.0f} km/h"
    if item.ttc_s is not None:
        text += f", {item.ttc_s:.1f} s to collision"
    if required_mps2 is not None:
        needs = "too late to stop" if math.isinf(required_mps2) else f"requires {required_mps2:.1f} m/s²"
        text += f": {needs} after {delay_s:.2f} s"
    if item.disagreement:
        text += "; range and image scale disagree"
    return text
