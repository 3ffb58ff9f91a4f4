"""When to warn and to brake: by tables, and in closed loop in the simulation."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from ssd_triton.common.detections import Detections
from ssd_triton.common.errors import ConfigError
from ssd_triton.common.units import KMH_PER_MPS
from ssd_triton.config import Config
from ssd_triton.driving.braking.conflict import Approach, Conflict
from ssd_triton.driving.braking.decision import FrameDecision
from ssd_triton.driving.braking.ego import EgoMotion
from ssd_triton.driving.braking.pipeline import BrakingPipeline
from ssd_triton.driving.braking.ranging import Hypothesis
from ssd_triton.driving.braking.state import State, StateMachine
from ssd_triton.simulation import Run, Scenario, Target, simulate
from ssd_triton.simulation.scenario import Criterion, Road, SideMove, SpeedPhase
from ssd_triton.simulation.simulate import Disturbance
from tests.driving.boxes import RoadUser, detections_of
from tests.simulation.helpers import CAMERA

pytestmark = pytest.mark.slow

SAFE, WARN, BRAKE, NO_DATA = State.SAFE, State.WARN, State.BRAKE, State.NO_DATA
SEEDS = range(2)
KMH = 1 / KMH_PER_MPS


@pytest.fixture
def truth(config: Config) -> Config:
    """For boxes with the noise of the simulation, of 2 px, and not that of the bundled detector."""
    return config.model_copy(update={"tracking": config.tracking.with_box_noise(2.0, 0.0)})


# --- Needed distance --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("needed_m", "ego_mps", "closing_mps", "braking_mps2", "delay_s", "deceleration_mps2"),
    [
        # v²/2a against a stationary object, after the distance driven during the delay.
        (10.0, 10.0, 10.0, 0.0, 0.0, 5.0),
        (20.0, 10.0, 10.0, 0.0, 1.0, 5.0),
        # An object at the same speed, or faster, needs nothing; for a slower one the closing speed counts.
        (0.0, 10.0, 0.0, 0.0, 0.5, 5.0),
        (0.0, 10.0, -3.0, 0.0, 0.5, 5.0),
        (10.0, 20.0, 10.0, 0.0, 0.0, 5.0),
        # It brakes to a stop, 10 m ahead from 10 m/s at 5 m/s²: the car may use 10 m more.
        (10.0, 10.0, 0.0, 5.0, 0.0, 2.5),
        (10.0, 10.0, 0.0, 5.0, 1.0, 5.0),
        # It brakes a little: the car must, too, before it stands.
        (1.0, 30.0, 10.0, 1.0, 0.0, 51.0),
        # It comes towards the car.
        (20.0, 10.0, 20.0, 0.0, 0.0, 10.0),
    ],
)
def test_needed_distance(  # noqa: PLR0917
    needed_m: float, ego_mps: float, closing_mps: float, braking_mps2: float, delay_s: float, deceleration_mps2: float
) -> None:
    approach = Approach(ego_mps, closing_mps, braking_mps2)
    assert approach.needed_distance_m(deceleration_mps2, delay_s) == pytest.approx(needed_m)


@pytest.mark.parametrize("braking_mps2", [0.0, 3.0])
def test_the_probability_of_a_conflict_is_that_of_drawn_motions(braking_mps2: float) -> None:
    """Against 20,000 motions drawn from the same distribution."""
    covariance = np.array([[4.0, -1.5, 0.0], [-1.5, 2.0, 0.0], [0.0, 0.0, 0.25]])
    motion = Hypothesis(1.0, 22.0, 9.0, braking_mps2, covariance)
    conflict = Conflict((motion,), 1.5, 14.0)
    draws = np.random.default_rng(0).multivariate_normal([22.0, 9.0, braking_mps2], covariance, 20_000)
    for limit_mps2 in (3.0, 5.0, 8.0):
        hits = [
            Approach(14.0, closing, max(braking, 0.0)).needed_distance_m(limit_mps2, 0.7) >= range_m - 1.5
            for range_m, closing, braking in draws.tolist()
        ]
        assert conflict.probability(limit_mps2, 0.7) == pytest.approx(np.mean(hits), abs=0.1)


def test_the_required_deceleration_has_the_asked_probability() -> None:
    conflict = Conflict((Hypothesis(1.0, 22.0, 9.0, 0.0, np.diag([4.0, 1.0, 0.1])),), 1.5, 14.0)
    for probability in (0.1, 0.5, 0.9):
        required_mps2 = conflict.required_deceleration_mps2(probability, 0.7)
        assert conflict.probability(required_mps2, 0.7) == pytest.approx(probability, abs=0.01)
    assert conflict.required_deceleration_mps2(0.5, 5.0) == math.inf


# --- Hysteresis -------------------------------------------------------------------------------------------------------


def run_machine(steps: list[tuple[float, State]], **keys: float) -> list[State]:
    confirmed_after = {"warn_confirm_frames": 3, "brake_confirm_frames": 3, "confirm_time_s": 0.06}
    settings = confirmed_after | {"hold_time_s": 2.0, "warning_time_s": 0.0} | keys
    machine = StateMachine(**settings)  # type: ignore[arg-type]
    urgent = settings["warning_time_s"] == 0
    return [machine.update(time_s, wanted, wanted, urgent=urgent) for time_s, wanted in steps]


@pytest.mark.parametrize(
    ("steps", "states"),
    [
        ([], []),
        ([(0.0, BRAKE), (0.1, BRAKE), (0.2, BRAKE)], [SAFE, SAFE, BRAKE]),
        ([(0.0, BRAKE), (0.1, BRAKE), (0.2, SAFE), (0.3, BRAKE), (0.4, BRAKE)], [SAFE] * 5),
        # Three frames at 100 a second do not span 60 ms; the seventh does.
        ([(0.01 * n, BRAKE) for n in range(7)], [SAFE] * 6 + [BRAKE]),
        ([(0.0, WARN), (0.1, WARN), (0.2, BRAKE), (0.3, BRAKE), (0.4, BRAKE)], [SAFE, SAFE, WARN, WARN, BRAKE]),
        ([(0.0, BRAKE), (0.1, WARN), (0.2, BRAKE), (0.3, WARN)], [SAFE, SAFE, WARN, WARN]),
        ([(0.0, BRAKE), (0.1, BRAKE), (0.2, BRAKE), (2.2, SAFE), (2.3, SAFE)], [SAFE, SAFE, BRAKE, BRAKE, SAFE]),
    ],
)
def test_states_are_confirmed_and_held(steps: list[tuple[float, State]], states: list[State]) -> None:
    assert run_machine(steps) == states


def test_brake_waits_for_the_warning() -> None:
    states = run_machine([(0.1 * n, BRAKE) for n in range(12)], warning_time_s=0.8)
    assert states == [SAFE] * 2 + [WARN] * 8 + [BRAKE] * 2


def test_braking_is_confirmed_by_fewer_frames_than_a_warning() -> None:
    states = run_machine([(0.1 * n, BRAKE) for n in range(3)], brake_confirm_frames=2)
    assert states == [SAFE, BRAKE, BRAKE]
    states = run_machine([(0.1 * n, WARN) for n in range(3)], brake_confirm_frames=2)
    assert states == [SAFE, SAFE, WARN]


def test_urgent_braking_does_not_wait() -> None:
    machine = StateMachine(3, 3, 0.06, 2.0, 0.8)
    assert [machine.update(0.1 * n, BRAKE, BRAKE, urgent=True) for n in range(3)] == [SAFE, SAFE, BRAKE]


def test_a_state_is_left_by_a_lower_threshold() -> None:
    machine = StateMachine(1, 1, 0.0, 0.5, 0.0)
    states = [
        machine.update(0.4 * n, BRAKE if n == 0 else SAFE, BRAKE if n < 3 else SAFE, urgent=True) for n in range(6)
    ]
    assert states == [BRAKE] * 4 + [SAFE] * 2


# --- Frames without data ----------------------------------------------------------------------------------------------


@pytest.fixture
def shown(truth: Config, labels: tuple[str, ...]) -> Callable[..., list[State]]:
    """States of frames at given times, each with a car at a range and a speed of the ego; None has no detections."""

    def show(pipeline: BrakingPipeline, *frames: tuple[float, float | None], speed_mps: float = 0.0) -> list[State]:
        states = []
        for time_s, range_m in frames:
            found = None if range_m is None else detections_of(CAMERA, labels, RoadUser(range_m))
            states.append(pipeline.step(time_s, found, EgoMotion(speed_mps)).state)
        return states

    return show


@pytest.fixture
def pipeline(truth: Config, labels: tuple[str, ...]) -> BrakingPipeline:
    return BrakingPipeline(CAMERA, labels, truth.braking, truth.tracking)


Shown = Callable[..., list[State]]


def test_the_first_frames_are_no_data(pipeline: BrakingPipeline, shown: Shown) -> None:
    assert shown(pipeline, *[(0.1 * n, 40.0) for n in range(4)]) == [NO_DATA, NO_DATA, SAFE, SAFE]


def test_frames_without_data_are_never_safe(pipeline: BrakingPipeline, shown: Shown) -> None:
    states = shown(pipeline, (0.0, 40.0), (0.1, 40.0), (0.2, 40.0), (0.3, None), (0.4, 40.0), (0.5, None))
    assert states == [NO_DATA, NO_DATA, SAFE, NO_DATA, SAFE, NO_DATA]
    assert pipeline.frames_without_data == 2


def test_without_any_data_there_is_no_safe(pipeline: BrakingPipeline, shown: Shown) -> None:
    assert set(shown(pipeline, *[(0.1 * n, None) for n in range(30)])) == {NO_DATA}


def test_braking_outlasts_frames_without_data_for_its_hold(pipeline: BrakingPipeline, shown: Shown) -> None:
    approach = [(0.05 * n, 30.0 - 0.7 * n) for n in range(36)]
    assert shown(pipeline, *approach, speed_mps=14.0)[-1] is BRAKE
    assert shown(pipeline, (2.0, None), (3.7, None), (3.9, None), speed_mps=14.0) == [BRAKE, BRAKE, NO_DATA]


def test_a_long_gap_starts_anew(pipeline: BrakingPipeline, shown: Shown) -> None:
    shown(pipeline, *[(0.1 * n, 40.0) for n in range(4)])
    assert shown(pipeline, (1.5, 40.0), (1.6, 40.0), (1.7, 40.0)) == [NO_DATA, NO_DATA, SAFE]
    found = detections_of(CAMERA, pipeline._labels, RoadUser(40.0))
    assert [item.track_id for item in pipeline.step(1.8, found, EgoMotion()).objects] == [2]


@pytest.mark.parametrize("time_s", [0.3, 0.1, -5.0, math.nan, math.inf])
def test_times_that_do_not_rise_are_refused(pipeline: BrakingPipeline, shown: Shown, time_s: float) -> None:
    shown(pipeline, *[(0.1 * n, 40.0) for n in range(4)])
    decision = pipeline.step(time_s, Detections.empty(), EgoMotion())
    assert decision.state is NO_DATA
    assert "frame refused: its time is" in decision.reason
    assert pipeline.refused_frames == 1
    assert shown(pipeline, (0.4, 40.0)) == [SAFE]


def test_a_stationary_ego_does_not_brake(pipeline: BrakingPipeline, shown: Shown) -> None:
    assert shown(pipeline, *[(0.05 * n, 30.0 - 0.7 * n) for n in range(36)], speed_mps=0.0)[-1] is SAFE


def test_latency_counts_into_the_reaction(truth: Config, labels: tuple[str, ...]) -> None:
    """Half a second more of latency at 50 km/h is 6.9 m."""
    ranges_m = []
    for latency_s in (0.0, 0.5):
        pipeline = BrakingPipeline(CAMERA, labels, truth.braking, truth.tracking, latency_s)
        for frame in range(200):
            range_m = 60.0 - 50 * KMH * frame / 30
            found = detections_of(CAMERA, labels, RoadUser(range_m))
            if pipeline.step(frame / 30, found, EgoMotion(50 * KMH)).state is BRAKE:
                ranges_m.append(range_m)
                break
    assert ranges_m[1] - ranges_m[0] == pytest.approx(6.9, abs=1.0)


@pytest.mark.parametrize("interval_s", [0.01, 0.2])
def test_confirmation_counts_into_the_delay(truth: Config, labels: tuple[str, ...], interval_s: float) -> None:
    """At a low frame rate, the frames that confirm take longer than the least time."""
    pipeline, braking = BrakingPipeline(CAMERA, labels, truth.braking, truth.tracking, 0.1), truth.braking
    delays_s = [pipeline.step(interval_s * n, Detections.empty(), EgoMotion()).delay_s for n in range(3)]
    confirming_s = max(braking.confirm_time_s, (braking.brake_confirm_frames - 1) * interval_s)
    assert delays_s[-1] == pytest.approx(0.1 + braking.reaction_time_s + confirming_s)


def test_a_class_without_a_size_is_refused(config: Config, labels: tuple[str, ...]) -> None:
    braking = config.braking.model_copy(update={"classes": ("car", "dog")})
    with pytest.raises(ConfigError, match=r"got 'dog', which has no size; add it to tracking\.object_sizes"):
        BrakingPipeline(CAMERA, labels, braking, config.tracking)


def test_the_reason_has_words_and_figures(truth: Config, labels: tuple[str, ...]) -> None:
    driver = Driver(truth, labels, brakes=False)
    driver.drive(Target("hatchback", 48.5), speed_mps=50 * KMH)
    decision = next(item for item in driver.decisions if item.state is BRAKE)
    assert decision.obstacle is not None
    assert decision.reason.startswith(f"car #1 at {decision.obstacle.range_m:.1f} m, closing at ")
    assert decision.cause is not None and not decision.cause.held
    assert f"requires {decision.cause.value:.1f} m/s², limit {decision.cause.threshold:.1f}" in decision.reason
    assert decision.required_deceleration_mps2 is not None and decision.required_deceleration_mps2 >= 5.0


def test_a_hold_names_the_cause_that_it_began_with(pipeline: BrakingPipeline, shown: Shown) -> None:
    shown(pipeline, *[(0.05 * n, 30.0 - 0.7 * n) for n in range(36)], speed_mps=14.0)
    other = RoadUser(25.0, -3.0, "bus", (2.6, 3.1, 11.0))
    decisions = [
        pipeline.step(1.8 + 0.05 * n, detections_of(CAMERA, pipeline._labels, other), EgoMotion(14.0))
        for n in range(20)
    ]
    last = decisions[-1]
    assert last.state is BRAKE and last.cause is not None
    assert (last.cause.class_name, last.cause.held) == ("car", True)
    assert last.reason.startswith("held since 0.") and "car #1 at " in last.reason


@pytest.mark.parametrize(("grows", "brakes"), [(True, True), (False, False)])
def test_range_alone_does_not_brake_with_a_guessed_camera(
    truth: Config, labels: tuple[str, ...], grows: bool, brakes: bool
) -> None:
    """A truck's lower edge comes nearer; without growth of its image, it brakes for nothing."""
    camera = replace(CAMERA, calibrated=False, pitch_std_rad=math.radians(2.5))
    pipeline = BrakingPipeline(camera, labels, truth.braking, truth.tracking)
    states = set()
    for frame in range(40):
        range_m = 32.0 - 0.7 * frame
        scale = 1.0 if grows else range_m / 20.0
        user = RoadUser(range_m, 0.0, "truck", (2.4 * scale, 2.9 * scale, 0.1))
        states.add(pipeline.step(0.05 * frame, detections_of(camera, labels, user), EgoMotion(14.0)).state)
    assert (BRAKE in states) is brakes


def test_tracks_outlive_a_better_calibration(pipeline: BrakingPipeline, shown: Shown) -> None:
    shown(pipeline, *[(0.1 * n, 20.0) for n in range(6)])
    pipeline.set_camera(CAMERA.with_pitch(0.4))
    found = detections_of(CAMERA.with_pitch(0.4), pipeline._labels, RoadUser(20.0))
    [item] = pipeline.step(0.6, found, EgoMotion(0.0)).objects
    assert item.track_id == 1
    assert item.range_m == pytest.approx(20.0, rel=0.1)
    with pytest.raises(ValueError, match="expected the size as before"):
        pipeline.set_camera(CAMERA.scaled_to(640, 360))


# --- In closed loop ---------------------------------------------------------------------------------------------------


class Driver:
    """A controller for the simulation that keeps the pipeline's decisions."""

    def __init__(self, config: Config, labels: tuple[str, ...], *, ego_known: bool = True, brakes: bool = True) -> None:
        self._config, self._labels, self._ego_known, self._brakes = config, labels, ego_known, brakes
        self._pipeline = BrakingPipeline(CAMERA, labels, config.braking, config.tracking, 0.1)
        self.decisions: list[FrameDecision] = []

    def __call__(self, time_s: float, detections: Detections | None, ego: EgoMotion) -> State:
        self.decisions.append(self._pipeline.step(time_s, detections, ego if self._ego_known else EgoMotion()))
        return self.decisions[-1].state if self._brakes else SAFE

    def drive(
        self,
        *targets: Target,
        speed_mps: float,
        seed: int = 0,
        duration_s: float = 8.0,
        pitch_error_deg: float = 0.0,
        road: Road | None = None,
    ) -> Run:
        simulation = self._config.simulation
        noise = simulation.noise.model_copy(update={"box_px": 2.0, "miss_rate": 0.0})
        return simulate(
            Scenario("test", speed_mps / KMH, targets, Criterion("none", "none"), duration_s, road or Road()),
            CAMERA,
            simulation,
            self._labels,
            front_overhang_m=self._config.braking.front_overhang_m,
            controller=self,
            seed=seed,
            disturbance=Disturbance(pitch_error_deg, noise),
            until_standing=True,
        )


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("pitch_error_deg", [-0.5, 0.5])
@pytest.mark.parametrize("speed_kmh", [20, 40, 60])
def test_a_stationary_car(
    truth: Config, labels: tuple[str, ...], speed_kmh: int, pitch_error_deg: float, seed: int
) -> None:
    """UN R152: no contact up to 40 km/h, at most 35 km/h left of 60, and a warning 0.8 s before braking."""
    gap_m = max(4.5 * speed_kmh * KMH, 25.0) - truth.braking.front_overhang_m
    run = Driver(truth, labels).drive(
        Target("hatchback", gap_m), speed_mps=speed_kmh * KMH, pitch_error_deg=pitch_error_deg, seed=seed
    )
    assert run.warning_lead_s is not None and run.warning_lead_s >= 0.8 - 1e-9
    assert run.contact is None


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    "target",
    [
        pytest.param(Target("hatchback", 43.5, speed_mps=20 * KMH), id="slower"),
        pytest.param(
            Target("hatchback", 12.0, speed_mps=50 * KMH, phases=(SpeedPhase(2.0, -2.0),)), id="brakes, 12 m ahead"
        ),
        pytest.param(
            Target("hatchback", 40.0, speed_mps=50 * KMH, phases=(SpeedPhase(2.0, -6.0),)), id="brakes, 40 m ahead"
        ),
        pytest.param(
            Target("hatchback", 22.0, 3.5, 30 * KMH, side_move=SideMove(1.0, 2.0, 0.0, smooth=False)), id="cuts in"
        ),
    ],
)
def test_a_car_that_drives_ahead_at_50_kmh(truth: Config, labels: tuple[str, ...], target: Target, seed: int) -> None:
    run = Driver(truth, labels).drive(target, speed_mps=50 * KMH, duration_s=12, seed=seed)
    assert run.brake_s is not None
    assert run.contact is None


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("side", [-1, 1])
@pytest.mark.parametrize("speed_kmh", [20, 40])
def test_a_pedestrian_who_crosses(truth: Config, labels: tuple[str, ...], speed_kmh: int, side: int, seed: int) -> None:
    walk_mps, after_s = 5 * KMH, 4.5
    start_m = -side * walk_mps * after_s
    walk = SideMove(0.0, 8.0, start_m + side * walk_mps * 8.0, smooth=False)
    walker = Target("adult", speed_kmh * KMH * after_s, start_m, side_move=walk)
    run = Driver(truth, labels).drive(walker, speed_mps=speed_kmh * KMH, seed=seed)
    assert run.brake_s is not None
    assert run.contact is None


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("pitch_error_deg", [-0.5, 0.5])
@pytest.mark.parametrize("ego_known", [True, False])
@pytest.mark.parametrize(
    "targets",
    [
        pytest.param([Target("hatchback", 18.5, speed_mps=50 * KMH)], id="same speed"),
        pytest.param([Target("hatchback", 28.5, 3.5, 4.0), Target("hatchback", 43.5, -3.5, 4.0)], id="adjacent lanes"),
        pytest.param([Target("hatchback", 118.5, -3.5, -50 * KMH)], id="oncoming"),
        pytest.param([Target("hatchback", 28.5 + 6.5 * n, 2.95) for n in range(6)], id="parked"),
        pytest.param([Target("adult", 33.5 + 8 * n, 3.0, 1.4) for n in range(3)], id="pavement"),
    ],
)
def test_what_must_not_brake(  # noqa: PLR0917
    truth: Config, labels: tuple[str, ...], targets: list[Target], ego_known: bool, pitch_error_deg: float, seed: int
) -> None:
    driver = Driver(truth, labels, ego_known=ego_known)
    run = driver.drive(*targets, speed_mps=50 * KMH, pitch_error_deg=pitch_error_deg, duration_s=6, seed=seed)
    assert run.brake_s is None, [item.reason for item in driver.decisions if item.state is BRAKE]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("side", [-1, 1])
def test_parked_cars_in_a_bend(truth: Config, labels: tuple[str, ...], side: int, seed: int) -> None:
    """A bend of 80 m with cars parked on both sides: the straight way ahead leads onto some of them."""
    parked = [Target("hatchback", 80 * angle, offset_m) for offset_m in (-3.2, 3.2) for angle in (0.3, 0.4, 0.5, 0.6)]
    run = Driver(truth, labels).drive(
        *parked, speed_mps=40 * KMH, road=Road(curvature_per_m=side / 80), duration_s=5, seed=seed
    )
    assert run.brake_s is None


def test_a_decision_takes_a_few_milliseconds(truth: Config, labels: tuple[str, ...]) -> None:
    """Ten objects, by processor time. The bound is loose, since the machine may be slower or busy."""
    pipeline = BrakingPipeline(CAMERA, labels, truth.braking, truth.tracking)
    rng, times_s = np.random.default_rng(0), []
    users = [RoadUser(30 + 4 * n, 3.0 * (n % 5 - 2)) for n in range(10)]
    for frame in range(100):
        found = detections_of(CAMERA, labels, *users, noise_px=2.0, rng=rng)
        start_s = time.thread_time()
        decision = pipeline.step(frame / 20, found, EgoMotion(10.0))
        times_s.append(time.thread_time() - start_s)
    assert len(decision.objects) == 10
    assert np.median(times_s) < 0.010
