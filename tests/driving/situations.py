"""Hand-made decisions to draw."""

from __future__ import annotations

from dataclasses import replace

from ssd_triton.driving.braking.corridor import Corridor
from ssd_triton.driving.braking.decision import FrameDecision, TrackedObject
from ssd_triton.driving.braking.ego import EgoMotion
from ssd_triton.driving.braking.state import State
from ssd_triton.driving.camera import RoadPoint
from ssd_triton.driving.drawing.status_bar import RunStatus, StageRate

RATES = [StageRate("read", 2.0, 500.0), StageRate("detect", 80.0, 50.0), StageRate("pipeline", None, None)]
STATUS = RunStatus(RATES, latency_ms=93.0, latency_is_measured=True, dropped_frames=3, frames_without_data=1)


def thing(**changes: object) -> TrackedObject:
    """A car 18.4 m ahead."""
    car = TrackedObject(
        track_id=3,
        class_name="car",
        box_xyxy=(120.0, 80.0, 200.0, 150.0),
        score=0.9,
        position=RoadPoint(18.4, 0.0),
        range_m=18.4,
        range_std_m=1.2,
        range_from_ground_m=18.0,
        range_from_size_m=19.0,
        closing_speed_mps=5.0,
        closing_speed_std_mps=0.5,
        lateral_speed_mps=0.0,
        offset_m=0.0,
        width_m=1.8,
        ttc_range_s=3.4,
        ttc_scale_s=3.6,
        ttc_s=3.4,
        disagreement=False,
        in_corridor=True,
        in_corridor_s=1.0,
        surely_in_corridor=True,
        corridor_probability=1.0,
        age_s=1.0,
        unseen_s=0.0,
    )
    return replace(car, **changes)  # type: ignore[arg-type]


def at(forward_m: float, lateral_m: float, **changes: object) -> TrackedObject:
    return thing(range_m=forward_m, position=RoadPoint(forward_m, lateral_m), **changes)


def decided(
    state: State,
    *objects: TrackedObject,
    obstacle: TrackedObject | None = None,
    speed_mps: float | None = 50 / 3.6,
    curvature_per_m: float = 0.0,
    time_s: float = 1.0,
) -> FrameDecision:
    return FrameDecision(
        time_s=time_s,
        state=state,
        obstacle=obstacle,
        reason="car at 18.4 m, closing at 18 km/h",
        required_deceleration_mps2=None if obstacle is None else 4.0,
        time_to_collision_s=None if obstacle is None else obstacle.ttc_s,
        objects=objects,
        ego=EgoMotion(speed_mps),
        corridor=Corridor(1.1, curvature_per_m),
        latency_s=0.1,
        delay_s=0.6,
    )
