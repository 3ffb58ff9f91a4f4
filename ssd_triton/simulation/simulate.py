"""Simulate a scenario in closed loop with a controller, or without braking.

    run = simulate(
        find_scenario("ccrs-40"), camera, config.simulation, labels, front_overhang_m=1.5, controller=controller, seed=1
    )
    print(run.impact_kmh, judge(run))

The simulation is independent of any braking system: a controller is a function. All randomness comes from the seed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ssd_triton.common.arrays import Float64Array
from ssd_triton.common.detections import Detections
from ssd_triton.config import DetectionNoiseConfig, SimulationConfig
from ssd_triton.driving.braking.ego import EgoMotion
from ssd_triton.driving.braking.state import State
from ssd_triton.driving.camera import Camera
from ssd_triton.simulation.ego_dynamics import Brakes, EgoPitch
from ssd_triton.simulation.motion import TargetState, rectangle, road_pose, target_state
from ssd_triton.simulation.noisy_detector import NoisyDetector
from ssd_triton.simulation.polygons import gap_m
from ssd_triton.simulation.run import Contact, Run
from ssd_triton.simulation.scenario import Scenario, SimulationError
from ssd_triton.simulation.snapshot import Snapshot, truth_of

_STANDING_S = 0.5
"""With ``until_standing``, a run ends this long after the ego has braked to standstill."""

_MAX_FPS = 1000.0

_NEAR_M, _FAR_STEPS = 3.0, 10
"""Gaps to targets within this distance are measured in every step; those to others in every tenth, to save time."""


class Controller(Protocol):
    """Decides on each frame; BRAKE brakes ``latency_s`` after the frame was taken."""

    def __call__(self, time_s: float, detections: Detections | None, ego: EgoMotion) -> State:
        """Decide on a frame; frames come in order of time."""


Observer = Callable[[Snapshot], Detections | None]
"""A detector: maps a snapshot to the detections of its frame, or None for a frame without data."""


@dataclass(frozen=True)
class Disturbance:
    """Errors added to a drive.

    Attributes:
        pitch_offset_deg: True pitch of the camera minus its calibrated pitch; positive looks down.
        noise: Noise of the detections; None takes the configuration's.
    """

    pitch_offset_deg: float = 0.0
    noise: DetectionNoiseConfig | None = None


def simulate(
    scenario: Scenario,
    camera: Camera,
    settings: SimulationConfig,
    labels: Sequence[str],
    *,
    front_overhang_m: float,
    controller: Controller | None = None,
    observer: Observer | None = None,
    seed: int = 0,
    fps: float = 20.0,
    latency_s: float = 0.1,
    disturbance: Disturbance | None = None,
    until_standing: bool = False,
) -> Run:
    """Drive a scenario to its end, or until the ego touches a target.

    Args:
        scenario: The scenario.
        camera: As calibrated; the ego's pitch and the disturbance are added.
        settings: Ego, brakes, noise, time step.
        labels: Class names by id.
        front_overhang_m: From the camera to the front bumper.
        controller: Decides on every frame; without one, the ego never brakes.
        observer: The detector; None uses the ground truth with noise.
        seed: Seed of the noise.
        fps: Frames per second.
        latency_s: From a frame until its decision reaches the brakes.
        disturbance: Errors to add; None adds none.
        until_standing: End the run 0.5 s after the ego has braked to standstill.

    Raises:
        SimulationError: ``fps`` is not above 0 and at most 1000, or the latency is negative.
    """
    if not 0 < fps <= _MAX_FPS:
        raise SimulationError(f"got {fps:g} fps, expected more than 0 and at most {_MAX_FPS:g}; change --fps")
    if not 0 <= latency_s < math.inf:
        raise SimulationError(f"got a latency of {latency_s:g} s, expected at least 0; change --latency-s")
    drive = Drive(
        scenario,
        camera,
        settings,
        front_overhang_m=front_overhang_m,
        disturbance=disturbance,
    )
    rng = np.random.default_rng(seed)
    detect = observer or NoisyDetector(labels, (disturbance and disturbance.noise) or settings.noise, rng)
    frames: list[Snapshot] = []
    states: list[State] = []
    for index in range(math.ceil(scenario.duration_s * fps)):
        drive.advance_to(index / fps)
        if drive.contact is not None or (until_standing and drive.standing_s >= _STANDING_S):
            break
        frames.append(drive.snapshot())
        if controller is not None:
            states.append(controller(frames[-1].time_s, detect(frames[-1]), frames[-1].ego_motion))
            drive.demand(states[-1] is State.BRAKE, frames[-1].time_s + latency_s)
    return _finish(scenario, seed, frames, states, drive)


class Drive:
    """The state of a drive, advanced in fixed steps.

    Args:
        scenario: The scenario.
        camera: As calibrated; the ego's pitch and the disturbance are added.
        settings: Ego, brakes, time step.
        front_overhang_m: From the camera to the front bumper.
        disturbance: Errors to add; None adds none.

    Attributes:
        contact: The first contact; it ends the drive.
        min_gap_m: Least distance between the outlines of the ego and any target so far.
        standing_s: Time since the ego braked to standstill.
        max_deceleration_mps2: The ego's hardest braking so far.
    """

    def __init__(
        self,
        scenario: Scenario,
        camera: Camera,
        settings: SimulationConfig,
        *,
        front_overhang_m: float,
        disturbance: Disturbance | None = None,
    ) -> None:
        self._scenario, self._camera, self._settings = scenario, camera, settings
        self._disturbance = disturbance or Disturbance()
        self.front_overhang_m = front_overhang_m
        self._brakes, self._pitch = Brakes(settings.brakes), EgoPitch(settings.pitch)
        self._demands: list[tuple[float, bool]] = []
        self._demanded = False
        self._steps = 0
        self._along_m, self._speed_mps = 0.0, scenario.ego_speed_mps
        self._states = self._targets_at(0.0)
        self.contact: Contact | None = None
        self.min_gap_m = math.inf
        self.standing_s = 0.0
        self.max_deceleration_mps2 = 0.0
        self._measure()

    @property
    def time_s(self) -> float:
        """Time since the start; steps are counted so that rounding does not accumulate."""
        return self._steps * self._settings.step_s

    def demand(self, brake: bool, time_s: float) -> None:
        """Let a decision reach the brakes at a time; decisions take effect in the order of the calls."""
        self._demands.append((time_s, brake))

    def advance_to(self, time_s: float) -> None:
        """Advance to the step nearest to a time, or to the first contact."""
        last = round(time_s / self._settings.step_s)
        while self._steps < last and self.contact is None:
            self._step()

    def snapshot(self) -> Snapshot:
        """Snapshot of the world at the present time."""
        pose = road_pose(self._scenario.road, self._along_m)
        road = self._scenario.road
        curvature = road.curvature_per_m if self._along_m > road.curve_start_m else 0.0
        pitch_deg = self._camera.pitch_deg + self._pitch.pitch_deg + self._disturbance.pitch_offset_deg
        return Snapshot(
            self.time_s,
            self._scenario,
            pose,
            self._along_m,
            self._speed_mps,
            self._brakes.deceleration_mps2 if self._speed_mps > 0 else 0.0,
            -curvature * self._speed_mps,
            self._camera.with_pitch(pitch_deg),
            self._states,
        )

    def _step(self) -> None:
        dt_s, now_s = self._settings.step_s, self.time_s
        while self._demands and self._demands[0][0] <= now_s + dt_s / 2:
            self._demanded = self._demands.pop(0)[1]
        self._brakes.advance(self._demanded, dt_s)
        braking = self._brakes.deceleration_mps2
        before_mps = self._speed_mps
        self._speed_mps = max(before_mps + self._acceleration_mps2(now_s, braking) * dt_s, 0.0)
        self._along_m += (before_mps + self._speed_mps) / 2 * dt_s
        actual = (before_mps - self._speed_mps) / dt_s
        self._pitch.advance(actual, dt_s)
        self.max_deceleration_mps2 = max(self.max_deceleration_mps2, actual)
        self.standing_s = self.standing_s + dt_s if self._speed_mps == 0 and braking > 0 else 0.0
        self._steps += 1
        self._states = self._targets_at(self.time_s)
        self._measure()

    def _acceleration_mps2(self, time_s: float, braking_mps2: float) -> float:
        if braking_mps2 > 0:
            return -braking_mps2
        phases = [phase.acceleration_mps2 for phase in self._scenario.ego_phases if phase.start_s <= time_s]
        return phases[-1] if phases else 0.0

    def _targets_at(self, time_s: float) -> tuple[TargetState, ...]:
        scenario = self._scenario
        return tuple(target_state(item, scenario.road, self.front_overhang_m, time_s) for item in scenario.targets)

    def _measure(self) -> None:
        """Measure the gaps to all targets, and record the first contact."""
        ego, front_m = self._settings.ego, self.front_overhang_m
        pose = road_pose(self._scenario.road, self._along_m)
        to_middle_m = front_m - ego.length_m / 2
        middle = (
            pose.x_m + to_middle_m * math.cos(pose.heading_rad),
            pose.y_m + to_middle_m * math.sin(pose.heading_rad),
        )
        ego_radius_m = math.hypot(ego.length_m, ego.width_m) / 2
        outline: Float64Array | None = None
        for index, state in enumerate(self._states):
            size = state.target.size
            apart_m = math.hypot(state.pose.x_m - middle[0], state.pose.y_m - middle[1])
            # Circles around both give a lower bound of the gap.
            bound_m = apart_m - ego_radius_m - math.hypot(size.length_m, size.width_m) / 2
            if bound_m >= self.min_gap_m or (bound_m > _NEAR_M and self._steps % _FAR_STEPS):
                continue
            if outline is None:
                outline = pose.to_world(rectangle(front_m - ego.length_m, front_m, ego.width_m))
            gap = gap_m(outline, state.outline_m())
            self.min_gap_m = min(self.min_gap_m, gap)
            if gap == 0 and self.contact is None:
                closing = max(self._speed_mps - state.speed_along_mps, 0.0)
                self.contact = Contact(self.time_s, index, closing)


def _finish(scenario: Scenario, seed: int, frames: list[Snapshot], states: list[State], drive: Drive) -> Run:
    def first(wanted: State) -> tuple[float | None, float | None]:
        for frame, state in zip(frames, states, strict=False):
            if state >= wanted:
                truths = truth_of(frame, drive.front_overhang_m)
                return frame.time_s, truths[0].ttc_s if truths else None
        return None, None

    (warn_s, ttc_at_warn_s), (brake_s, ttc_at_brake_s) = first(State.WARN), first(State.BRAKE)
    return Run(
        scenario,
        seed,
        tuple(frames),
        tuple(states),
        drive.contact,
        drive.min_gap_m,
        warn_s,
        brake_s,
        ttc_at_warn_s,
        ttc_at_brake_s,
        drive.max_deceleration_mps2,
    )
