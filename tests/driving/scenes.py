"""The least of a world that braking can be tested in: point masses on a flat road, and their boxes in a camera.

Positions are in metres from the point below the camera at its start: x ahead, y to the right. There is no picture.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from ssd_triton.common.detections import Detections
from ssd_triton.config import Config
from ssd_triton.driving.braking.ego import EgoMotion
from ssd_triton.driving.braking.objects import FrameDecision
from ssd_triton.driving.braking.pipeline import BrakingPipeline
from ssd_triton.driving.braking.state import State
from ssd_triton.driving.camera import Camera

CAMERA = Camera.from_fov((1280, 720), horizontal_fov_deg=60, height_m=1.3)
KMH = 1 / 3.6
FULL_BRAKING_MPS2 = 9.0
"""A passenger car on a dry road."""
DEAD_TIME_S, RAMP_TIME_S = 0.2, 0.3
"""From the decision until the brakes act, and from then until they act in full."""


@dataclass
class Target:
    """A box-shaped road user whose near face's middle is at x, y.

    Attributes:
        x_m: Ahead of the camera's start.
        y_m: To the right.
        vx_mps: Along the road.
        vy_mps: Across it, positive to the right.
        class_name: Of the model.
        size_m: Width, height and length.
        heading_rad: Of its length, positive to the right.
        acceleration_mps2: Along the road as a function of time; a target does not reverse by braking.
        crossing: Speed across the road as a function of time, in place of the constant one.
    """

    x_m: float
    y_m: float = 0.0
    vx_mps: float = 0.0
    vy_mps: float = 0.0
    class_name: str = "car"
    size_m: tuple[float, float, float] = (1.8, 1.5, 4.5)
    heading_rad: float = 0.0
    acceleration_mps2: Callable[[float], float] = field(default=lambda _: 0.0)
    crossing: Callable[[float], float] | None = None

    def move(self, time_s: float, dt_s: float) -> None:
        """Move on."""
        acceleration = self.acceleration_mps2(time_s)
        before = self.vx_mps
        self.vx_mps += acceleration * dt_s
        if acceleration < 0 <= before:
            self.vx_mps = max(self.vx_mps, 0.0)
        self.x_m += (before + self.vx_mps) / 2 * dt_s
        self.y_m += (self.vy_mps if self.crossing is None else self.crossing(time_s)) * dt_s


@dataclass
class Ego:
    """The car: on a circle of a constant curvature, positive to the right."""

    speed_mps: float
    curvature_per_m: float = 0.0
    x_m: float = 0.0
    y_m: float = 0.0
    heading_rad: float = 0.0
    deceleration_mps2: float = 0.0

    def move(self, dt_s: float) -> None:
        """Move on; braking ends in a stop."""
        speed = max(self.speed_mps - self.deceleration_mps2 * dt_s, 0.0)
        distance_m = (self.speed_mps + speed) / 2 * dt_s
        middle_rad = self.heading_rad + self.curvature_per_m * distance_m / 2
        self.x_m += distance_m * math.cos(middle_rad)
        self.y_m += distance_m * math.sin(middle_rad)
        self.heading_rad += self.curvature_per_m * distance_m
        self.speed_mps = speed

    def seen_from(self, x_m: float, y_m: float) -> tuple[float, float]:
        """A point of the world, ahead of the camera and to its right."""
        dx, dy = x_m - self.x_m, y_m - self.y_m
        cos, sin = math.cos(self.heading_rad), math.sin(self.heading_rad)
        return dx * cos + dy * sin, dy * cos - dx * sin


@dataclass(frozen=True)
class Outcome:
    """What came of a drive.

    Attributes:
        decisions: Of every frame.
        true_ranges_m: Of the first target at every frame, from the camera.
        impact_mps: Closing speed at contact; None without one.
        nearest_m: Least distance of bumper and first target.
    """

    decisions: list[FrameDecision]
    true_ranges_m: list[float]
    impact_mps: float | None
    nearest_m: float

    def first_s(self, state: State) -> float | None:
        """When a state, or a more urgent one, was reached first."""
        return next((item.time_s for item in self.decisions if item.state >= state), None)


def box_of(target: Target, ego: Ego, camera: Camera) -> tuple[float, float, float, float] | None:
    """Box around the corners of a target, clipped to the image; None where it is not seen."""
    width_m, height_m, length_m = target.size_m
    cos, sin = math.cos(target.heading_rad), math.sin(target.heading_rad)
    points = []
    for along_m in (0.0, length_m):
        for aside_m in (-width_m / 2, width_m / 2):
            x_m = target.x_m + along_m * cos - aside_m * sin
            forward_m, lateral_m = ego.seen_from(x_m, target.y_m + along_m * sin + aside_m * cos)
            for up_m in (0.0, height_m):
                points.append(camera.image_point(max(forward_m, 0.2), lateral_m, up_m))
    if ego.seen_from(target.x_m, target.y_m)[0] < 0.5 or any(point is None for point in points):
        return None
    xs, ys = zip(*[point for point in points if point is not None], strict=True)
    left, right = max(min(xs), 0.0), min(max(xs), camera.width_px)
    top, bottom = max(min(ys), 0.0), min(max(ys), camera.height_px)
    return (left, top, right, bottom) if right - left > 4 and bottom - top > 4 else None


def detect(  # noqa: PLR0917
    targets: Sequence[Target],
    ego: Ego,
    camera: Camera,
    labels: Sequence[str],
    rng: np.random.Generator,
    noise_px: float,
) -> Detections:
    """Boxes of all targets that are seen, with noise on every side."""
    found = [(box, target) for target in targets if (box := box_of(target, ego, camera)) is not None]
    boxes = np.array([box for box, _ in found], np.float32).reshape(-1, 4)
    boxes += rng.normal(0, noise_px, boxes.shape).astype(np.float32)
    return Detections(
        boxes,
        np.full(len(found), 0.9, np.float32),
        np.array([labels.index(target.class_name) for _, target in found], np.int32),
    )


def drive(
    config: Config,
    labels: Sequence[str],
    targets: Sequence[Target],
    *,
    speed_mps: float,
    seed: int = 0,
    duration_s: float = 8.0,
    fps: float = 20.0,
    noise_px: float = 2.0,
    pitch_error_deg: float = 0.0,
    curvature_per_m: float = 0.0,
    latency_s: float = 0.1,
    ego_known: bool = True,
    brakes: bool = True,
) -> Outcome:
    """Drive with the pipeline in the loop: BRAKE stops the car, after the latency and the brakes' own delay."""
    rng, steps = np.random.default_rng(seed), 10
    ego = Ego(speed_mps, curvature_per_m)
    pipeline = BrakingPipeline(CAMERA, labels, config.braking, config.tracking, latency_s)
    seen_by, overhang_m = CAMERA.with_pitch(pitch_error_deg), config.braking.front_overhang_m
    decisions: list[FrameDecision] = []
    ranges_m: list[float] = []
    demands: list[tuple[float, bool]] = []
    impact_mps, nearest_m, braking_s = None, math.inf, 0.0
    for frame in range(round(duration_s * fps)):
        time_s = frame / fps
        detections = detect(targets, ego, seen_by, labels, rng, noise_px)
        motion = EgoMotion(ego.speed_mps, -ego.curvature_per_m * ego.speed_mps) if ego_known else EgoMotion()
        decisions.append(pipeline.step(time_s, detections, motion))
        demands.append((time_s + latency_s, brakes and decisions[-1].state is State.BRAKE))
        ranges_m.append(ego.seen_from(targets[0].x_m, targets[0].y_m)[0])
        for step in range(steps):
            now_s = time_s + step / fps / steps
            demanded = next((on for since_s, on in reversed(demands) if since_s <= now_s), False)
            braking_s = braking_s + 1 / fps / steps if demanded else 0.0
            ramp = min(max((braking_s - DEAD_TIME_S) / RAMP_TIME_S, 0.0), 1.0)
            ego.deceleration_mps2 = FULL_BRAKING_MPS2 * ramp
            ego.move(1 / fps / steps)
            for target in targets:
                target.move(now_s, 1 / fps / steps)
            forward_m, lateral_m = ego.seen_from(targets[0].x_m, targets[0].y_m)
            beside = abs(lateral_m) > 0.9 + targets[0].size_m[0] / 2
            if not beside and forward_m > -targets[0].size_m[2]:
                nearest_m = min(nearest_m, forward_m - overhang_m)
            if not beside and -targets[0].size_m[2] < forward_m - overhang_m <= 0:
                impact_mps = max(ego.speed_mps - targets[0].vx_mps, 0.0)
                return Outcome(decisions, ranges_m, impact_mps, nearest_m)
        if ego.speed_mps == 0 and targets[0].vx_mps >= 0 and braking_s > 0.5:
            break
    return Outcome(decisions, ranges_m, impact_mps, nearest_m)
