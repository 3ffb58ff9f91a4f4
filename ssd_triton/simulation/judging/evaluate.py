"""Drive scenarios many times with braking in the loop, and judge every drive by the criteria of the catalogue.

    setup = Setup(config, labels, camera, fps=20.0, latency_s=0.1)
    results = evaluate(setup, [find_scenario("ccrs-40")], seeds=5)
    print([result.verdict for result in results])

Detections are either the ground truth with noise, or come from a detector in rendered frames.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from statistics import median

from ssd_triton.common.arrays import UInt8Array
from ssd_triton.common.detections import Detections
from ssd_triton.common.processes import process_pool
from ssd_triton.common.progress import progress
from ssd_triton.common.units import KMH_PER_MPS
from ssd_triton.config import Config
from ssd_triton.driving.braking.state import State
from ssd_triton.driving.camera import Camera
from ssd_triton.simulation.clip import pipeline_controller
from ssd_triton.simulation.rendering.renderer import Renderer, check_camera
from ssd_triton.simulation.run import Run, judge
from ssd_triton.simulation.scenario import Scenario, SimulationError
from ssd_triton.simulation.simulate import Disturbance, Observer, simulate
from ssd_triton.simulation.snapshot import Snapshot, truth_of

_LARGEST_OFFSET_DEG = 10.0
"""Ten times the pitch of a loaded car; a camera that has moved by more sees another scene."""

_LEAST_CLOSING_MPS = 0.5
"""Closing speed of the first target that justifies a warning."""

Detect = Callable[[UInt8Array], Detections]
"""A detector: given a picture, UINT8 [H, W, 3] RGB, the detections in its pixels."""


@dataclass(frozen=True)
class Setup:
    """Settings that all drives share.

    Attributes:
        config: Configuration; the sections ``simulation``, ``braking`` and ``tracking`` are used.
        labels: Class names by id, the background first.
        camera: The calibrated camera.
        fps: Frames a second.
        latency_s: Time from a frame until its decision reaches the brakes.
    """

    config: Config
    labels: tuple[str, ...]
    camera: Camera
    fps: float
    latency_s: float


@dataclass(frozen=True)
class DriveMoment:
    """One frame of a drive, against the first target.

    Attributes:
        time_s: Time since the start.
        state: The decision.
        speed_kmh: Speed of the ego.
        gap_m: Distance from the ego's front to the target; NaN without one.
        ttc_s: True time to collision; NaN without a target, infinite when the gap does not shrink.
    """

    time_s: float
    state: State
    speed_kmh: float
    gap_m: float
    ttc_s: float


@dataclass(frozen=True)
class DriveOutcome:
    """The outcome of one drive; see :class:`ssd_triton.simulation.run.Run`.

    Attributes:
        seed: Seed of the noise, or of the picture.
        pitch_offset_deg: Pitch of the camera relative to its calibration; positive looks down.
        impact_kmh: Closing speed at contact; None without one.
        min_gap_m: Smallest distance to any target.
        warn_s: Time of the first WARN or BRAKE; None without.
        brake_s: Time of the first BRAKE; None without.
        ttc_at_warn_s: True time to collision with the first target at ``warn_s``.
        ttc_at_brake_s: The same at ``brake_s``.
        warning_lead_s: Time from WARN to BRAKE; None without BRAKE.
        lead_before_need_s: Time from the first WARN until braking by ``deceleration_mps2`` is truly needed, at the
            closing speed of that frame; below 0 for a late WARN, None without WARN or when nothing closes in.
        false_warning_frames: Number of frames with an unjustified WARN or BRAKE; see :func:`false_warnings`.
        false_warning_episodes: Number of uninterrupted sequences of such frames.
        max_deceleration_mps2: Highest deceleration of the ego.
        failures: Criteria that it missed, in words.
        moments: All frames of a drive that fails; empty for one that passes.
    """

    seed: int
    pitch_offset_deg: float
    impact_kmh: float | None
    min_gap_m: float
    warn_s: float | None
    brake_s: float | None
    ttc_at_warn_s: float | None
    ttc_at_brake_s: float | None
    warning_lead_s: float | None
    lead_before_need_s: float | None
    false_warning_frames: int
    false_warning_episodes: int
    max_deceleration_mps2: float
    failures: tuple[str, ...]
    moments: tuple[DriveMoment, ...]


@dataclass(frozen=True)
class ScenarioResult:
    """All drives of a scenario.

    Attributes:
        scenario: The scenario.
        outcomes: One for each seed and pitch offset.
    """

    scenario: Scenario
    outcomes: tuple[DriveOutcome, ...]

    @property
    def judged(self) -> bool:
        """Whether the rule has a criterion; other results are only reported."""
        criterion = self.scenario.criterion
        return criterion.verdict != "none" or criterion.min_warning_lead_s is not None

    @property
    def failed(self) -> int:
        """Number of drives that miss the criterion."""
        return sum(bool(outcome.failures) for outcome in self.outcomes)

    @property
    def verdict(self) -> str:
        """``passed``, ``FAILED`` with the count, or ``reported``."""
        if not self.judged:
            return "reported"
        return f"FAILED ({self.failed} of {len(self.outcomes)})" if self.failed else "passed"

    @property
    def impacts_kmh(self) -> list[float]:
        """Closing speeds of the drives that ended in a contact."""
        return [outcome.impact_kmh for outcome in self.outcomes if outcome.impact_kmh is not None]

    @property
    def ttc_at_brake_s(self) -> float | None:
        """Median of the true time to collision at BRAKE; None where no drive braked."""
        times = [outcome.ttc_at_brake_s for outcome in self.outcomes if outcome.ttc_at_brake_s is not None]
        return median(times) if times else None

    @property
    def warning_leads_s(self) -> list[float]:
        """Warning leads of the drives that braked."""
        return [outcome.warning_lead_s for outcome in self.outcomes if outcome.warning_lead_s is not None]

    @property
    def leads_before_need_s(self) -> list[float]:
        """Leads before need of the drives that warned of something that closes in."""
        return [outcome.lead_before_need_s for outcome in self.outcomes if outcome.lead_before_need_s is not None]

    @property
    def false_warnings(self) -> int:
        """Number of drives with a false warning."""
        return sum(outcome.false_warning_frames > 0 for outcome in self.outcomes)

    @property
    def false_brakes(self) -> dict[float, int] | None:
        """Number of drives with BRAKE, by pitch offset in degrees; None where braking may be right."""
        if self.scenario.criterion.verdict != "no brake":
            return None
        counts = {outcome.pitch_offset_deg: 0 for outcome in self.outcomes}
        for outcome in self.outcomes:
            counts[outcome.pitch_offset_deg] += outcome.brake_s is not None
        return counts


@dataclass(frozen=True)
class _Task:
    scenario: Scenario
    seed: int
    pitch_offset_deg: float


def evaluate(
    setup: Setup,
    chosen: Sequence[Scenario],
    *,
    seeds: int,
    pitch_offsets_deg: Sequence[float] = (0.0,),
    jobs: int = 1,
    detect: Detect | None = None,
) -> list[ScenarioResult]:
    """Drive every scenario with every seed.

    Args:
        setup: Settings that all drives share.
        chosen: Scenarios to drive.
        seeds: Each scenario is driven with the seeds 0 to ``seeds`` - 1.
        pitch_offsets_deg: Pitch offsets of the camera from its calibration, for scenarios in which braking is wrong.
            All others are driven with the camera as calibrated.
        jobs: Processes.
        detect: Detector for rendered frames, called in this process; None takes the ground truth with the configured
            noise.

    Returns:
        One result a scenario, in their order.

    Raises:
        SimulationError: There is nothing to drive, or a number is out of range.
        UserError: ``detect`` failed.
    """
    offsets = tuple(dict.fromkeys(pitch_offsets_deg))
    _check(chosen, seeds, offsets, jobs)
    tasks = [
        _Task(scenario, seed, offset)
        for scenario in chosen
        for offset in (offsets if scenario.criterion.verdict == "no brake" else (0.0,))
        for seed in range(seeds)
    ]
    with _mapped(setup, tasks, min(jobs, len(tasks)), detect) as results:
        finished = progress(results, total=len(tasks), description="braking", unit="runs")
        outcomes = list(zip(tasks, finished, strict=True))
    return [
        ScenarioResult(scenario, tuple(outcome for task, outcome in outcomes if task.scenario is scenario))
        for scenario in chosen
    ]


def _check(chosen: Sequence[Scenario], seeds: int, offsets_deg: Sequence[float], jobs: int) -> None:
    if not chosen or not offsets_deg:
        raise SimulationError("got nothing to drive, expected at least one scenario and one pitch offset")
    if len({scenario.name for scenario in chosen}) < len(chosen):
        raise SimulationError("got a scenario twice, expected each once; change --scenario")
    for number, name in ((seeds, "seeds"), (jobs, "jobs")):
        if number < 1:
            raise SimulationError(f"got {number} {name}, expected at least 1; change --{name}")
    for offset in offsets_deg:
        if not abs(offset) <= _LARGEST_OFFSET_DEG:
            raise SimulationError(
                f"got a pitch offset of {offset:g} degrees, expected at most {_LARGEST_OFFSET_DEG:g} either way; "
                "change --pitch-offsets-deg"
            )


@contextmanager
def _mapped(setup: Setup, tasks: Sequence[_Task], jobs: int, detect: Detect | None) -> Iterator[Iterable[DriveOutcome]]:
    """Yield the results in the order of the tasks; they are computed while they are read."""
    work = partial(_drive, setup, detect=detect)
    if detect is not None or jobs == 1:
        yield map(work, tasks)
        return
    with process_pool(jobs) as pool:
        yield pool.map(work, tasks)


def _drive(setup: Setup, task: _Task, *, detect: Detect | None) -> DriveOutcome:
    config, overhang_m = setup.config, setup.config.braking.front_overhang_m
    run = simulate(
        task.scenario,
        setup.camera,
        config.simulation,
        setup.labels,
        front_overhang_m=overhang_m,
        controller=pipeline_controller(setup.camera, setup.labels, config, setup.latency_s, truth=detect is None),
        observer=None if detect is None else _rendered(setup, task, detect),
        seed=task.seed,
        fps=setup.fps,
        latency_s=setup.latency_s,
        disturbance=Disturbance(pitch_offset_deg=task.pitch_offset_deg),
        until_standing=True,
    )
    failures, false = tuple(judge(run)), false_warnings(run, overhang_m)
    return DriveOutcome(
        task.seed,
        task.pitch_offset_deg,
        run.impact_kmh,
        run.min_gap_m,
        run.warn_s,
        run.brake_s,
        run.ttc_at_warn_s,
        run.ttc_at_brake_s,
        run.warning_lead_s,
        _lead_before_need_s(run, setup),
        sum(false),
        sum(now and not before for before, now in pairwise([False, *false])),
        run.max_deceleration_mps2,
        failures,
        tuple(_moments(run, overhang_m)) if failures else (),
    )


def false_warnings(run: Run, front_overhang_m: float) -> list[bool]:
    """Whether each frame has an unjustified WARN or BRAKE.

    In scenarios in which braking is wrong, all of them are unjustified; otherwise, those before the first target closes
    in by 0.5 m/s.
    """
    never, justified, false = run.scenario.criterion.verdict == "no brake", False, []
    for frame, state in zip(run.frames, run.states, strict=True):
        justified = justified or (not never and _closes_in(frame, front_overhang_m))
        false.append(state >= State.WARN and not justified)
    return false


def _closes_in(frame: Snapshot, front_overhang_m: float) -> bool:
    truths = truth_of(frame, front_overhang_m)
    return bool(truths) and truths[0].closing_mps >= _LEAST_CLOSING_MPS


def _lead_before_need_s(run: Run, setup: Setup) -> float | None:
    """Time from the first WARN until the gap is v·τ + v²/(2A), where τ is the delay of system and brakes."""
    frame = next((frame for frame in run.frames if frame.time_s == run.warn_s), None)
    truths = truth_of(frame, setup.config.braking.front_overhang_m) if frame is not None else []
    if not truths or not math.isfinite(truths[0].ttc_s):
        return None
    brakes = setup.config.simulation.brakes
    delay_s = setup.latency_s + brakes.dead_time_s + brakes.build_up_s / 2
    return truths[0].ttc_s - delay_s - truths[0].closing_mps / (2 * setup.config.braking.deceleration_mps2)


def false_warning_share(results: Sequence[ScenarioResult]) -> float:
    """Share of the drives in which braking is wrong that have a false warning; 0 without such drives."""
    quiet = [result for result in results if result.scenario.criterion.verdict == "no brake"]
    drives = sum(len(result.outcomes) for result in quiet)
    return sum(result.false_warnings for result in quiet) / drives if drives else 0.0


def _rendered(setup: Setup, task: _Task, detect: Detect) -> Observer:
    """Make an observer that runs the detector on rendered frames."""
    check_camera(setup.camera)
    renderer = Renderer(task.scenario, setup.camera, seed=task.seed)

    def observe(snapshot: Snapshot) -> Detections:
        return detect(renderer.draw(snapshot))

    return observe


def _moments(run: Run, front_overhang_m: float) -> Iterator[DriveMoment]:
    for frame, state in zip(run.frames, run.states, strict=True):
        truths = truth_of(frame, front_overhang_m)
        gap_m, ttc_s = (truths[0].gap_m, truths[0].ttc_s) if truths else (math.nan, math.nan)
        yield DriveMoment(frame.time_s, state, frame.ego_speed_mps * KMH_PER_MPS, gap_m, ttc_s)
