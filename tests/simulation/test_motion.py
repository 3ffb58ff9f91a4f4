"""The simulated world: kinematics, contact, judging, and what it refuses."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ssd_triton.common.detections import Detections
from ssd_triton.config import BrakesConfig, Config
from ssd_triton.driving.braking.ego import EgoMotion
from ssd_triton.driving.braking.state import State
from ssd_triton.simulation import SimulationError, Target, find_scenario, judge, scenarios
from ssd_triton.simulation.dataset import write_dataset
from ssd_triton.simulation.motion import moved_aside, rectangle, road_pose, target_state, travelled
from ssd_triton.simulation.polygons import gap_m
from ssd_triton.simulation.rendering.renderer import Renderer
from ssd_triton.simulation.scenario import Criterion, Road, SideMove, SpeedPhase
from ssd_triton.simulation.snapshot import truth_of
from tests.simulation.helpers import CAMERA, OVERHANG_M, alone, brake_from, drive


@pytest.mark.parametrize(
    ("speed_mps", "phases", "time_s", "way_m", "end_mps"),
    [
        (0.0, (), 0.0, 0.0, 0.0),
        (10.0, (), 3.0, 30.0, 10.0),
        (10.0, ((1.0, 2.0),), 3.0, 10 + 20 + 4, 14.0),
        (50 / 3.6, ((2.0, -6.0),), 20.0, 2 * 50 / 3.6 + (50 / 3.6) ** 2 / 12, 0.0),
        (50 / 3.6, ((2.0, -2.0),), 3.0, 3 * 50 / 3.6 - 1, 50 / 3.6 - 2),
        (-10.0, ((0.0, 5.0),), 9.0, -10.0, 0.0),
    ],
)
def test_targets_move_in_closed_form(speed_mps, phases, time_s, way_m, end_mps):  # noqa: ANN001, ANN201
    got = travelled(speed_mps, [SpeedPhase(*phase) for phase in phases], time_s)
    assert got == pytest.approx((way_m, end_mps))


@pytest.mark.parametrize(
    ("smooth", "time_s", "offset_m", "speed_mps"),
    [(True, 0.5, 3.5, 0.0), (True, 2.0, 1.75, -3.5 * math.pi / 4), (True, 9.0, 0.0, 0.0), (False, 1.5, 2.625, -1.75)],
)
def test_moves_across_the_road(smooth: bool, time_s: float, offset_m: float, speed_mps: float) -> None:
    move = SideMove(1.0, 2.0, 0.0, smooth)
    assert moved_aside(3.5, move, time_s) == pytest.approx((offset_m, speed_mps), abs=1e-9)


@pytest.mark.parametrize("side", [1, -1])
def test_road_bends_as_a_circle(side: int) -> None:
    road = Road(side / 100, curve_start_m=20.0)
    quarter = road_pose(road, 20 + 100 * math.pi / 2)
    assert (quarter.x_m, quarter.y_m, quarter.heading_rad) == pytest.approx((120.0, side * 100.0, side * math.pi / 2))
    # An inner lane is shorter: its points lie nearer to the centre of the circle.
    inner = road_pose(road, 20 + 100 * math.pi / 2, side * 3.5)
    assert math.hypot(inner.x_m - 20, inner.y_m - side * 100) == pytest.approx(96.5)


@pytest.mark.parametrize(
    ("first", "second", "gap"),
    [
        (rectangle(0, 4, 2), rectangle(0, 4, 2), 0.0),
        (rectangle(0, 4, 2), rectangle(5, 9, 2), 1.0),
        (rectangle(0, 4, 2), rectangle(4, 8, 2), 0.0),
        (rectangle(0, 4, 2), rectangle(0, 4, 2) + np.array([0.0, 3.0]), 1.0),
        (rectangle(0, 4, 2), rectangle(0, 4, 2) + np.array([7.0, 6.0]), 5.0),
        (rectangle(-1, 1, 2), np.array([[2.0, 0.0], [3.0, 1.0], [4.0, 0.0], [3.0, -1.0]]), 1.0),
        (rectangle(-5, 5, 10), rectangle(-1, 1, 1), 0.0),
        (rectangle(-5, 5, 1), rectangle(-1, 1, 10), 0.0),
    ],
)
def test_gap_of_rectangles(first: np.ndarray, second: np.ndarray, gap: float) -> None:
    assert gap_m(first, second) == pytest.approx(gap, abs=1e-12)
    assert gap_m(second, first) == pytest.approx(gap, abs=1e-12)


def stopping_distance_m(speed_mps: float, settings: BrakesConfig) -> float:
    """Stopping distance from the demand to standstill, in closed form: dead time, ramp, full deceleration."""
    full, ramp_s = settings.max_deceleration_mps2, settings.build_up_s
    dead_m = speed_mps * settings.dead_time_s
    jerk = full / ramp_s
    stopping_s = math.sqrt(2 * speed_mps / jerk)
    if stopping_s <= ramp_s:
        return dead_m + speed_mps * stopping_s - jerk * stopping_s**3 / 6
    ramped_mps = speed_mps - jerk * ramp_s**2 / 2
    return dead_m + speed_mps * ramp_s - jerk * ramp_s**3 / 6 + ramped_mps**2 / (2 * full)


@pytest.mark.parametrize("speed_kmh", [0, 5, 30, 60])
def test_ego_stops_where_the_closed_form_says(config: Config, labels: tuple[str, ...], speed_kmh: float) -> None:
    run = drive(config, labels, alone(speed_kmh=speed_kmh, duration_s=8), controller=brake_from(1.0), latency_s=0.1)
    expected_m = speed_kmh / 3.6 * 1.1 + stopping_distance_m(speed_kmh / 3.6, config.simulation.brakes)
    assert run.frames[-1].ego_speed_mps == 0
    assert run.frames[-1].ego_along_m == pytest.approx(expected_m, abs=0.03 + 0.01 * speed_kmh / 3.6)
    assert run.max_deceleration_mps2 <= config.simulation.brakes.max_deceleration_mps2 + 1e-9


def test_contact_happens_when_and_as_fast_as_it_must(config: Config, labels: tuple[str, ...]) -> None:
    scenario = alone(Target("hatchback", 20.0, speed_mps=5.0), speed_kmh=54, duration_s=5)
    run = drive(config, labels, scenario)
    assert run.contact is not None
    assert run.contact.time_s == pytest.approx(2.0, abs=0.01)
    assert run.impact_kmh == pytest.approx(36.0)
    assert run.min_gap_m == 0
    first = truth_of(run.frames[0], OVERHANG_M)[0]
    assert (first.gap_m, first.ttc_s, first.range_m) == pytest.approx((20.0, 2.0, 21.5))


@pytest.mark.parametrize(
    "name", [row.name for row in scenarios() if row.name.startswith(("cpna", "cpfa", "pedestrian"))]
)
def test_unbraked_ego_hits_the_pedestrian_where_the_row_says(
    config: Config, labels: tuple[str, ...], name: str
) -> None:
    run = drive(config, labels, find_scenario(name))
    assert run.contact is not None
    state = target_state(run.scenario.targets[0], run.scenario.road, OVERHANG_M, 5.0)
    share = {"cpna-25": 0.25, "cpna-75": 0.75}.get(name[:7], 0.5)
    side = np.sign(run.scenario.targets[0].offset_m)
    assert side * state.pose.y_m == pytest.approx(1.8 * (0.5 - share), abs=1e-6)


def test_false_braking_drives_pass_without_contact(config: Config, labels: tuple[str, ...]) -> None:
    rows = [row for row in scenarios() if row.criterion.verdict == "no brake"]
    assert len(rows) >= 12
    for row in rows:
        run = drive(config, labels, row, fps=5)
        assert run.contact is None, row.name
        assert run.min_gap_m > 0.5, row.name


@pytest.mark.parametrize(
    ("verdict", "states", "passes"),
    [
        ("no brake", [State.SAFE, State.WARN], True),
        ("no brake", [State.WARN, State.BRAKE], False),
        ("none", [State.BRAKE], True),
    ],
)
def test_judging_of_states(
    config: Config, labels: tuple[str, ...], verdict: str, states: list[State], passes: bool
) -> None:
    told = iter([*states, *[State.SAFE] * 10])
    scenario = replace(alone(Target("suv", 50)), criterion=Criterion("test", verdict), duration_s=0.3)  # type: ignore[arg-type]
    run = drive(config, labels, scenario, controller=lambda *_: next(told))
    assert (not judge(run)) == passes


def test_judging_of_contacts_and_warnings(config: Config, labels: tuple[str, ...]) -> None:
    scenario = alone(Target("hatchback", 15.0), speed_kmh=36, duration_s=5)
    run = drive(config, labels, scenario, controller=brake_from(0.5))
    assert run.impact_kmh is not None
    for limit, passes in ((run.impact_kmh + 1, True), (run.impact_kmh - 1, False)):
        criterion = Criterion("test", "residual speed", limit)
        assert (not judge(replace(run, scenario=replace(scenario, criterion=criterion)))) == passes
    strict = replace(scenario, criterion=Criterion("test", "none", min_warning_lead_s=0.8))
    assert judge(replace(run, scenario=strict)) == ["warning 0.00 s before braking, expected at least 0.8 s"]


@pytest.mark.slow
def test_same_seed_same_drive_bit_for_bit(config: Config, labels: tuple[str, ...]) -> None:
    seen: dict[int, list[bytes]] = {}
    for attempt, seed in enumerate((3, 3, 4)):
        rows = seen.setdefault(attempt, [])

        def controller(time_s: float, detections: Detections | None, ego: EgoMotion, rows: list[bytes] = rows) -> State:
            assert detections is not None
            rows.append(detections.boxes_xyxy.tobytes() + detections.scores.tobytes())
            return State.BRAKE if len(rows) > 20 else State.SAFE

        drive(config, labels, replace(find_scenario("town"), duration_s=3), controller=controller, seed=seed)
    assert seen[0] == seen[1]
    assert seen[0] != seen[2]


def test_refusals(labels: tuple[str, ...], config: Config, tmp_path: Path) -> None:
    with pytest.raises(SimulationError, match="lens distortion"):
        Renderer(alone(), replace(CAMERA, distortion=(0.1, 0.0, 0.0, 0.0)))
    with pytest.raises(SimulationError, match="unknown weather 'snow'"):
        Renderer(alone(), CAMERA, weather="snow")
    with pytest.raises(SimulationError, match="latency"):
        drive(config, labels, alone(), latency_s=-1)
    with pytest.raises(SimulationError, match="at least 1"):
        write_dataset(tmp_path, 0, 0, [(160, 120)], labels)
    with pytest.raises(ValueError, match="tram"):
        Target("tram", 10)
    with pytest.raises(ValueError, match="duration_s"):
        alone(duration_s=0)
