"""The state that one object demands in one frame.

With a known ego speed, the measure is the probability that avoiding the object requires at least ``deceleration_mps2``
after the delay of the system and the brakes; see :mod:`ssd_triton.driving.braking.conflict`. WARN is due when this
probability will reach ``conflict_probability`` within ``warning_lead_time_s``. After a warning, BRAKE is due when the
probability reaches 0.6 of that now; without a warning, the requirements are higher. With an unknown ego speed, the
measure is the time to collision from image scale. The limit for BRAKE is the delay plus ``ttc_brake_s``.

Two estimates of the closing rate, from range and from image scale, check each other. Where they disagree by more than
their noise, or where the camera is not calibrated, both must call for WARN or BRAKE.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Literal

from ssd_triton.common.units import KMH_PER_MPS
from ssd_triton.config import BrakingConfig
from ssd_triton.driving.braking.conflict import Conflict
from ssd_triton.driving.braking.corridor import Corridor
from ssd_triton.driving.braking.decision import Cause, CauseKind, TrackedObject
from ssd_triton.driving.braking.ego import EgoMotion
from ssd_triton.driving.braking.hypotheses import Hypothesis
from ssd_triton.driving.braking.onset import NO_ONSET, Onset
from ssd_triton.driving.braking.ranging import LONGEST_UNMEASURED_S
from ssd_triton.driving.braking.state import State
from ssd_triton.driving.braking.track import Track
from ssd_triton.driving.braking.way import MAY_STAND_ABOVE, SETTLED_S, STANDS_ABOVE, way_of
from ssd_triton.driving.camera import RoadPoint

_LEAST_CLOSING_MPS = 0.3
"""Lower closing speeds are noise: a bump at 1 km/h does not justify emergency braking."""

_DISAGREEMENT_STD, _DISAGREEMENT_RATIO = 2.0, 0.3
"""Closing rates disagree when their difference exceeds this many of its standard deviations, and this share of the
larger rate."""

_LIKELY, _GROWING, _LEAST_GROWTH_PER_S = 0.95, 0.9, 0.02
"""Conditions of both WARN and BRAKE: the probability with which an object must close in by range, the probability with
which its image must grow, and the least growth."""

_WARNED, _SURE = 0.6, 1.5
"""Factors on ``conflict_probability`` for BRAKE. After a warning it is 0.3 instead of 0.5, since a box that grows too
slowly for a second hides a conflict. For a vehicle without a warning before, it is 0.75."""

_DRIVING_MPS, _HARD_BRAKING_MPS2, _HARD_BRAKING_STD = 2.0, 1.5, 3.5
"""An object faster than walking pace is driving. Its braking is hard when it exceeds that of usual traffic (Euro NCAP's
CCRb has 2 and 6 m/s²) with this certainty of the onset test, in standard deviations. In 8 s of steady following at
12 m, 2 px of noise in each side of a box raise the certainty to 3.5 for two frames in a row in 1 drive of 100."""

_EXACTLY = ((0.0, 0.0, 0.0),) * 3
"""Covariance of a motion that is assumed to be known exactly."""

_NORMAL = NormalDist()


@dataclass(frozen=True)
class Hazard:
    """The state that an object demands.

    Attributes:
        item: The object.
        wanted: State by the full thresholds: SAFE, WARN or BRAKE.
        kept: State by the lower thresholds for leaving a state.
        urgent: Whether BRAKE cannot wait for a warning.
        measure: What avoiding it requires.
    """

    item: TrackedObject
    wanted: State
    kept: State
    urgent: bool
    measure: Measure

    @property
    def urgency(self) -> tuple[State, State, float, float]:
        """Sort key: the hazard with the greatest urgency is reported."""
        ttc_s = math.inf if self.item.ttc_s is None else self.item.ttc_s
        return self.wanted, self.kept, -ttc_s, -self.item.range_m

    def cause(self, time_s: float) -> Cause:
        """The cause of ``wanted``, at the time of the frame."""
        measure = self.measure
        return Cause(
            state=self.wanted,
            time_s=time_s,
            track_id=self.item.track_id,
            class_name=self.item.class_name,
            kind=measure.kind,
            value=measure.value(self.wanted),
            threshold=measure.threshold(self.wanted),
            unit=measure.unit,
            ahead_s=measure.ahead_s(self.wanted),
            range_m=self.item.range_m,
            closing_speed_mps=self.item.closing_speed_mps,
        )


def describe_track(
    track: Track, time_s: float, ego: EgoMotion, corridor: Corridor, settings: BrakingConfig
) -> TrackedObject:
    """Describe a track: its range, speeds, times to collision and relation to the corridor."""
    ranging, offset, raw = track.range, track.offset, track.raw
    distance_m = max(ranging.range_m - settings.front_overhang_m, 0.0)
    ttc_range_s = _ttc_s(distance_m, ranging.closing_speed_mps)
    ttc_scale_s = _ttc_s(distance_m, track.scale.rate_per_s * ranging.outline_range_m)
    disagreement = _disagree(track)
    if ego.speed_mps is None:
        ttc_s = ttc_scale_s
    elif disagreement:
        ttc_s = None if ttc_range_s is None or ttc_scale_s is None else max(ttc_range_s, ttc_scale_s)
    else:
        ttc_s = ttc_range_s
    left, top, right, bottom = (float(side) for side in track.seen.box_xyxy)
    way = way_of(track, ttc_range_s, corridor)
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
        in_corridor=way.likely,
        in_corridor_s=track.stay_s(time_s, in_corridor=way.likely),
        surely_in_corridor=way.surely,
        corridor_probability=way.probability,
        age_s=time_s - track.first_s,
        unseen_s=time_s - track.last_seen_s,
    )


def assess(
    track: Track, item: TrackedObject, ego: EgoMotion, settings: BrakingConfig, delay_s: float, *, calibrated: bool
) -> Hazard:
    """Decide which state an object demands.

    Args:
        track: The track.
        item: Its description by :func:`describe_track`.
        ego: The ego's motion.
        settings: Thresholds.
        delay_s: From the camera's exposure until the brakes act.
        calibrated: Whether range alone may decide.
    """
    measure = _measure(track, item, ego, settings, delay_s, calibrated=calibrated)
    is_stationary = ego.speed_mps is not None and ego.speed_mps < _LEAST_CLOSING_MPS
    is_measured = track.range.unmeasured_s <= LONGEST_UNMEASURED_S and track.evidence >= settings.least_evidence
    if not (item.in_corridor and is_measured) or is_stationary:
        return Hazard(item, State.SAFE, State.SAFE, urgent=False, measure=measure)
    onset = track.onset_test.onset() if track.group == "vehicle" else NO_ONSET
    by_onset = _measure_of_onset(onset, measure, item, ego)

    def brakes_hard(ratio: float) -> bool:
        """Whether a moving object brakes too hard to warn in time."""
        drives = onset.speed_mps > _DRIVING_MPS
        hard = onset.certainty > ratio * _HARD_BRAKING_STD and onset.braking_mps2 > ratio * _HARD_BRAKING_MPS2
        return drives and hard and by_onset.calls(State.BRAKE, ratio)

    def level(ratio: float, *, may_brake: bool) -> State:
        """The state demanded with every threshold multiplied by a ratio."""
        warns = measure.calls(State.WARN, ratio)
        if may_brake and (brakes_hard(ratio) or (warns and measure.calls(State.BRAKE, ratio))):
            return State.BRAKE
        return State.WARN if may_warn and warns else State.SAFE

    may_warn = item.in_corridor_s >= SETTLED_S or not (
        track.group == "vehicle" and track.range.standing > MAY_STAND_ABOVE
    )
    wanted = level(1.0, may_brake=item.surely_in_corridor)
    kept = max(wanted, level(settings.release_ratio, may_brake=True))
    sure = replace(measure, certainty=_SURE if track.group == "vehicle" else 1.0)
    urgent = wanted is State.BRAKE and (brakes_hard(1.0) or sure.calls(State.BRAKE, settings.urgent_ratio))
    if wanted is State.BRAKE and not measure.calls(State.BRAKE, 1.0):
        measure = by_onset
    return Hazard(item, wanted, kept, urgent, measure)


@dataclass(frozen=True)
class Measure:
    """What avoiding an object requires: a deceleration or, without ego speed, a time to collision.

    Attributes:
        settings: Thresholds.
        delay_s: From the camera's exposure until the brakes act.
        kind: The evidence.
        conflicts: The conflict by range and, where the range is not enough, by image scale; all must call for a state.
            Empty without ego speed.
        in_corridor: Probability that the object is in the corridor, or will be when the ego gets there.
        part: Factor on the deceleration that a state needs.
        scale: Closing speed from the growth of the image, divided by the distance, and its standard deviation; per
            second.
        lead_s: Time by which WARN comes before BRAKE is due.
        certainty: Factor on the probability that BRAKE needs.
        must_grow: Whether the image must grow; not for a stationary object, whose closing speed is known.
    """

    settings: BrakingConfig
    delay_s: float
    kind: CauseKind
    conflicts: tuple[Conflict, ...]
    scale: tuple[float, float]
    in_corridor: float
    part: float = 1.0
    lead_s: float = 0.0
    must_grow: bool = True
    certainty: float = _WARNED

    @property
    def unit(self) -> Literal["m/s²", "s"]:
        """Unit of value and threshold."""
        return "m/s²" if self.conflicts else "s"

    def calls(self, state: State, ratio: float) -> bool:
        """Whether WARN or BRAKE is due with every threshold multiplied by a ratio."""
        if self.must_grow and _likely_above(self.scale, _LEAST_GROWTH_PER_S) < _GROWING:
            return False
        if self.conflicts:
            limit_mps2, delay_s = self.threshold(state, ratio), self.delay_s + self.ahead_s(state)
            return all(
                one.probability(limit_mps2, delay_s) >= self._least_probability(state)
                and one.closing(_LEAST_CLOSING_MPS) >= _LIKELY
                for one in self.conflicts
            )
        return self.value(state) <= self.threshold(state, ratio)

    def value(self, state: State) -> float:
        """The figure that must pass the threshold, with the probability that the state needs."""
        probability, delay_s = self._least_probability(state), self.delay_s + self.ahead_s(state)
        if self.conflicts:
            return min(one.required_deceleration_mps2(probability, delay_s) for one in self.conflicts)
        rate, std = self.scale
        fast = rate - _NORMAL.inv_cdf(min(probability, 0.999)) * std
        return 1 / fast if fast > 0 else math.inf

    def threshold(self, state: State, ratio: float = 1.0) -> float:
        """The limit in force."""
        if self.conflicts:
            return self.settings.deceleration_mps2 * ratio * self.part
        return self.delay_s + self.ahead_s(state) + self.settings.ttc_brake_s / ratio

    def _least_probability(self, state: State) -> float:
        """Least probability of a conflict with an object in the corridor.

        WARN also weighs the probability that the object is in the corridor. BRAKE is only due for objects that surely
        are.
        """
        if state is State.WARN:
            return self.settings.conflict_probability / max(self.in_corridor, 1e-3)
        return self.settings.conflict_probability * self.certainty

    def ahead_s(self, state: State) -> float:
        """How far ahead a state looks."""
        return self.lead_s if state is State.WARN else 0.0


def _likely_above(value: tuple[float, float], limit: float) -> float:
    """Probability that a value, given with its standard deviation, exceeds a limit."""
    return _NORMAL.cdf((value[0] - limit) / max(value[1], 1e-6))


def _measure(
    track: Track, item: TrackedObject, ego: EgoMotion, settings: BrakingConfig, delay_s: float, *, calibrated: bool
) -> Measure:
    ranging, scale = track.range, track.scale
    distance_m = max(ranging.range_m - settings.front_overhang_m, 1e-3)
    outline_m = ranging.outline_range_m
    by_scale = scale.rate_per_s * outline_m, scale.rate_std_per_s * outline_m
    growth = by_scale[0] / distance_m, by_scale[1] / distance_m
    # A turned vehicle is mostly stationary where the road bends: the driver will steer before BRAKE is due.
    lead_s = 0.0 if track.is_turned else settings.warning_lead_time_s
    if ego.speed_mps is None:
        return Measure(settings, delay_s, "scale", (), growth, item.corridor_probability, lead_s=lead_s, certainty=1.0)
    conflicts = [Conflict(ranging.hypotheses, settings.front_overhang_m, ego.speed_mps)]
    if item.disagreement or not calibrated:
        covariance = (ranging.range_std_m**2, 0.0, 0.0), (0.0, by_scale[1] ** 2, 0.0), (0.0, 0.0, 0.0)
        alone = Hypothesis(1.0, ranging.range_m, by_scale[0], 0.0, covariance)
        conflicts.append(Conflict((alone,), settings.front_overhang_m, ego.speed_mps))
    half_m = settings.corridor_half_width_m + item.width_m / 2
    kind: CauseKind = "lateral" if abs(item.offset_m) > half_m else "range"
    must_grow = track.range.standing < STANDS_ABOVE
    return Measure(
        settings, delay_s, kind, tuple(conflicts), growth, item.corridor_probability, lead_s=lead_s, must_grow=must_grow
    )


def _measure_of_onset(onset: Onset, measure: Measure, item: TrackedObject, ego: EgoMotion) -> Measure:
    """What avoiding an object that brakes hard requires; the onset test is itself based on the growth of the image."""
    ego_mps = ego.speed_mps or 0.0
    motion = Hypothesis(1.0, item.range_m, ego_mps - onset.speed_mps, onset.braking_mps2, _EXACTLY)
    conflict = Conflict((motion,), measure.settings.front_overhang_m, ego_mps)
    part = measure.settings.braking_ratio
    return replace(measure, kind="onset", conflicts=(conflict,), part=part, must_grow=False)


def _ttc_s(distance_m: float, closing_mps: float) -> float | None:
    return distance_m / closing_mps if closing_mps > _LEAST_CLOSING_MPS else None


def _disagree(track: Track) -> bool:
    """Whether the closing rates from range and from image scale differ by more than noise explains."""
    by_range, by_scale = track.range.closing_rate_per_s, track.scale.rate_per_s
    difference = abs(by_range - by_scale)
    noise = math.hypot(track.range.closing_rate_std_per_s, track.scale.rate_std_per_s)
    larger = max(abs(by_range), abs(by_scale))
    return difference > _DISAGREEMENT_STD * noise and difference > _DISAGREEMENT_RATIO * larger


def describe_obstacle(item: TrackedObject) -> str:
    """Describe an object in the corridor that calls for neither WARN nor BRAKE."""
    what = f"{item.class_name} #{item.track_id} at {item.range_m:.1f} m"
    if item.unseen_s > 0:
        what += f" (not seen for {item.unseen_s:.1f} s)"
    if item.closing_speed_mps <= _LEAST_CLOSING_MPS:
        return f"{what}, not closing in"
    text = f"{what}, closing at {item.closing_speed_mps * KMH_PER_MPS:.0f} km/h"
    return text if item.ttc_s is None else f"{text}, {item.ttc_s:.1f} s to collision"
