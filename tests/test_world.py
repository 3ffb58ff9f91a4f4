"""The simulated world: kinematics, contact, boxes, pictures, and what it refuses."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import pytest

from ssd_triton.common.detections import Detections
from ssd_triton.config import Config, DetectionNoiseConfig
from ssd_triton.driving.braking.ego import EgoMotion, load_ego_csv
from ssd_triton.driving.braking.state import State
from ssd_triton.driving.camera import Camera
from ssd_triton.evaluation.annotations import read_annotations
from ssd_triton.simulation import Run, Scenario, Target, WorldError, find_scenario, judge, scenarios, simulate
from ssd_triton.simulation.brakes import stopping_distance_m
from ssd_triton.simulation.clip import render_clip
from ssd_triton.simulation.contact import gap_m
from ssd_triton.simulation.dataset import write_dataset
from ssd_triton.simulation.ground_truth import seen_targets
from ssd_triton.simulation.motion import moved_aside, rectangle, road_pose, target_state, travelled
from ssd_triton.simulation.outcome import truth_of
from ssd_triton.simulation.rendering.render import Renderer
from ssd_triton.simulation.rendering.weather import WEATHERS
from ssd_triton.simulation.scenario import Criterion, Road, SideMove, SpeedPhase
from ssd_triton.simulation.simulate import Disturbance
from tests.conftest import assert_one_line_error

CAMERA = Camera.from_fov((1280, 720), horizontal_fov_deg=60, height_m=1.3)
SMALL = CAMERA.scaled_to(640, 360)
OVERHANG_M = 1.5
NO_NOISE = DetectionNoiseConfig(box_px=0, miss_rate=0, min_visible_share=0, min_height_px=0)
NOTHING_ASKED = Criterion("none", "none")


def drive(config: Config, labels: tuple[str, ...], scenario: Scenario, **options: object) -> Run:
    return simulate(scenario, CAMERA, config.world, labels, front_overhang_m=OVERHANG_M, **options)  # type: ignore[arg-type]


def alone(*targets: Target, speed_kmh: float = 0.0, duration_s: float = 0.1, road: Road | None = None) -> Scenario:
    return Scenario("test", speed_kmh, targets, NOTHING_ASKED, duration_s, road or Road())


@lru_cache(maxsize=2)
def _without_shadows(weather: str) -> Renderer:
    return Renderer(alone(), CAMERA, weather=weather, seed=7, shadows=False)


def brake_from(time_s: float):  # type: ignore[no-untyped-def]  # noqa: ANN201
    def controller(now_s: float, detections: Detections | None, ego: EgoMotion) -> State:
        return State.BRAKE if now_s >= time_s - 1e-9 else State.SAFE

    return controller


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


@pytest.mark.parametrize("speed_kmh", [0, 5, 30, 60])
def test_ego_stops_where_the_closed_form_says(config: Config, labels: tuple[str, ...], speed_kmh: float) -> None:
    run = drive(config, labels, alone(speed_kmh=speed_kmh, duration_s=8), controller=brake_from(1.0), latency_s=0.1)
    expected_m = speed_kmh / 3.6 * 1.1 + stopping_distance_m(speed_kmh / 3.6, config.world.brakes)
    assert run.frames[-1].ego_speed_mps == 0
    assert run.frames[-1].ego_along_m == pytest.approx(expected_m, abs=0.03 + 0.01 * speed_kmh / 3.6)
    assert run.max_deceleration_mps2 <= config.world.brakes.max_deceleration_mps2 + 1e-9


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


def test_nothing_is_seen_in_an_empty_world(config: Config, labels: tuple[str, ...]) -> None:
    def controller(time_s: float, detections: Detections | None, ego: EgoMotion) -> State:
        assert detections is not None
        assert len(detections) == 0
        return State.SAFE

    run = drive(config, labels, alone(speed_kmh=50), controller=controller)
    assert (run.contact, run.min_gap_m, run.warn_s) == (None, math.inf, None)
    picture = Renderer(run.scenario, SMALL).draw(replace(run.frames[0], camera=SMALL))
    assert picture.shape == (360, 640, 3)


def test_box_of_a_car_ahead_is_where_hand_computation_puts_it(config: Config, labels: tuple[str, ...]) -> None:
    """The body's rear and widest part are 10 m ahead; the roof, lower and narrower, farther on."""
    run = drive(config, labels, alone(Target("truck", 8.5)))
    (seen,) = seen_targets(run.frames[0].targets, run.frames[0].ego, CAMERA)
    focal_px = 640 / math.tan(math.radians(30))
    assert seen.range_m == pytest.approx(10.0, abs=0.05)
    left, top, right, _ = seen.box_xyxy
    assert left == pytest.approx(640 - focal_px * 1.25 / 10.0, abs=2)
    assert right == pytest.approx(640 + focal_px * 1.25 / 10.0, abs=2)
    assert top == pytest.approx(360 - focal_px * (3.5 - 1.3) / 10.0, abs=2)
    assert seen.visible_share == 1


def test_boxes_are_cut_off_at_the_border(config: Config, labels: tuple[str, ...]) -> None:
    run = drive(config, labels, alone(Target("saloon", 2.0, -2.5), Target("adult", 3.0, 30.0)))
    (seen,) = seen_targets(run.frames[0].targets, run.frames[0].ego, CAMERA)
    assert seen.box_xyxy[0] == 0
    assert 0 < seen.visible_share < 1


def test_nearer_targets_hide_others(config: Config, labels: tuple[str, ...]) -> None:
    hidden = Target("adult", 20.0, 0.0)
    run = drive(config, labels, alone(hidden, Target("truck", 8.0), Target("adult", 20.0, 6.0)))
    seen = {item.index: item for item in seen_targets(run.frames[0].targets, run.frames[0].ego, CAMERA)}
    assert set(seen) == {1, 2}
    half = drive(config, labels, alone(Target("hatchback", 20.0, 2.6), Target("truck", 8.0)))
    seen = {item.index: item for item in seen_targets(half.frames[0].targets, half.frames[0].ego, CAMERA)}
    assert 0.05 < seen[0].visible_share < 0.9
    # The lorry's rear end, a little lower than its side, bounds the box; its silhouette has slanted sides.
    assert seen[0].box_xyxy[0] == pytest.approx(seen[1].box_xyxy[2], abs=6)


def test_noise_misses_and_pitch(config: Config, labels: tuple[str, ...]) -> None:
    def boxes(disturbance: Disturbance, seed: int = 0) -> list[Detections]:
        got: list[Detections] = []

        def controller(time_s: float, detections: Detections | None, ego: EgoMotion) -> State:
            assert detections is not None
            got.append(detections)
            return State.SAFE

        scenario = alone(Target("saloon", 20.0), duration_s=10)
        drive(config, labels, scenario, controller=controller, disturbance=disturbance, seed=seed)
        return got

    exact = boxes(Disturbance(noise=NO_NOISE))
    assert {labels[int(item.class_ids[0])] for item in exact} == {"car"}
    noisy = boxes(Disturbance(noise=NO_NOISE.model_copy(update={"box_px": 2.0})))
    errors = np.array([b.boxes_xyxy[0] - a.boxes_xyxy[0] for a, b in zip(exact, noisy, strict=True)])
    assert errors.std() == pytest.approx(2.0, rel=0.15)
    missing = boxes(Disturbance(noise=NO_NOISE.model_copy(update={"miss_rate": 0.25})))
    assert 0.15 < np.mean([len(item) == 0 for item in missing]) < 0.35
    pitched = boxes(Disturbance(pitch_offset_deg=0.5, noise=NO_NOISE))
    moved_px = exact[0].boxes_xyxy[0, 3] - pitched[0].boxes_xyxy[0, 3]
    assert moved_px == pytest.approx(CAMERA.fy_px * math.radians(0.5), rel=0.02)


def test_braking_dips_the_nose(config: Config, labels: tuple[str, ...]) -> None:
    run = drive(config, labels, alone(speed_kmh=60, duration_s=3), controller=brake_from(0.2))
    deepest = max(frame.camera.pitch_deg for frame in run.frames)
    full = config.world.pitch.deg_per_mps2 * config.world.brakes.max_deceleration_mps2
    assert full < deepest < 1.6 * full
    assert run.frames[0].camera.pitch_deg == 0


@pytest.mark.parametrize(
    "target",
    [
        Target("hatchback", 9.0, 0.4, look=1),
        Target("suv", 25.0, -3.5, -10.0, look=2),
        Target("bus", 18.0, 4.0, look=3),
        Target("truck", 12.0, -4.5),
        Target("adult", 7.0, 1.0, heading_deg=-90, look=4),
        Target("child", 6.0, -1.0, 1.4, look=5),
    ],
    ids=lambda target: target.body,
)
@pytest.mark.parametrize("weather", ["sunny", "rain"])
def test_what_is_drawn_fills_the_annotated_box(
    config: Config, labels: tuple[str, ...], target: Target, weather: str
) -> None:
    """Drawn with and without the target, pictures differ within its box and up to its sides."""
    frame = drive(config, labels, alone(target)).frames[0]
    renderer = _without_shadows(weather)
    (seen,) = seen_targets(frame.targets, frame.ego, frame.camera)
    difference = cv2.absdiff(renderer.draw(frame), renderer.draw(replace(frame, targets=()))).max(axis=2)
    rows, columns = np.nonzero(difference > 12)
    drawn = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
    np.testing.assert_allclose(drawn, seen.box_xyxy, atol=2.0)


@pytest.mark.parametrize("weather", list(WEATHERS))
def test_pictures_of_all_weathers(config: Config, labels: tuple[str, ...], weather: str) -> None:
    frame = replace(drive(config, labels, find_scenario("town")).frames[10], camera=SMALL)
    picture = Renderer(frame.scenario, SMALL, weather=weather, seed=1).draw(frame)
    assert 25 < picture.mean() < 230
    assert picture.std() > 15


def test_pictures_repeat_and_seeds_differ(config: Config, labels: tuple[str, ...]) -> None:
    frame = replace(drive(config, labels, find_scenario("town")).frames[10], camera=SMALL)
    first, again, other = (Renderer(frame.scenario, SMALL, seed=seed).draw(frame) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first.astype(int) - other).mean() > 3


def test_ground_keeps_its_texture_while_the_ego_moves(config: Config, labels: tuple[str, ...]) -> None:
    """A marking on the road is seen where the camera model puts it, from two places."""
    scenario = alone(speed_kmh=36, duration_s=1)
    run = drive(config, labels, scenario, fps=10)
    renderer = Renderer(scenario, CAMERA, seed=1)
    for frame in (run.frames[0], run.frames[7]):
        # Yellow is as bright as white in red alone.
        picture = renderer.draw(frame)[..., 0].astype(int)
        begin_m = 9.0 * math.ceil((frame.ego_along_m + 6) / 9.0) - frame.ego_along_m
        inside, outside = (CAMERA.image_point(begin_m + ahead_m, -1.75) for ahead_m in (1.5, -2.0))
        assert inside is not None
        assert outside is not None
        on, off = (picture[round(point.y_px - 0.5), round(point.x_px - 0.5)] for point in (inside, outside))
        assert on > off + 40


def test_clip_with_annotations_and_tables(config: Config, labels: tuple[str, ...], tmp_path: Path) -> None:
    scenario = replace(find_scenario("ccrm-50"), duration_s=0.5)
    video, annotations = tmp_path / "clip.mp4", tmp_path / "clip.json"
    clip = render_clip(scenario, video, SMALL, config, labels, fps=10, annotations=annotations)
    capture = cv2.VideoCapture(str(video))
    assert (capture.get(cv2.CAP_PROP_FRAME_COUNT), capture.get(cv2.CAP_PROP_FRAME_WIDTH)) == (5, 640)
    found = read_annotations(annotations)
    assert len(found.images) == 5
    assert {labels[item.category_id] for item in found.annotations} == {"car"}
    assert {category.id: category.name for category in found.categories} == dict(enumerate(labels[1:], start=1))
    rows = list(csv.DictReader(clip.table.open()))
    assert [float(row["time_s"]) for row in rows] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])
    assert float(rows[0]["ttc_s"]) == pytest.approx(5.0, abs=1e-3)
    assert load_ego_csv(clip.ego_table, max_gap_s=1).at(0.2).speed_mps == pytest.approx(50 / 3.6, abs=1e-3)


def test_dataset(labels: tuple[str, ...], tmp_path: Path) -> None:
    sets = [
        write_dataset(tmp_path / name, 3, seed, [(160, 120)], labels, processes=processes)
        for name, seed, processes in (("a", 1, 1), ("b", 1, 2), ("c", 2, 1))
    ]
    contents = [json.loads(item.annotations.read_text()) for item in sets]
    assert contents[0] == contents[1] != contents[2]
    assert [path.name for path in sorted(sets[0].folder.iterdir())] == [f"1-00000{index}.jpg" for index in range(3)]
    first, again = (cv2.imread(str(item.folder / "1-000002.jpg")) for item in sets[:2])
    np.testing.assert_array_equal(first, again)
    for box in contents[0]["annotations"]:
        left, top, width, height = box["bbox"]
        assert min(left, top) >= 0
        assert left + width <= 160.01
        assert top + height <= 120.01
        assert box["iscrowd"] == 0
        assert 0 < box["visibility"] <= 1


def test_worlds_of_a_dataset_take_turns_in_their_size(run_script, tmp_path: Path) -> None:  # noqa: ANN001
    sizes = ["--size", "96", "72", "--size", "128", "64"]
    result = run_script("tools/render_dataset.py", tmp_path, "--count", "9", "--processes", "2", *sizes)
    assert result.returncode == 0, result.stderr
    expected = [(96, 72)] * 8 + [(128, 64)]
    images = read_annotations(tmp_path / "annotations.json").images
    assert len(images) == 9
    for image, (width, height) in zip(images, expected, strict=True):
        assert cv2.imread(str(tmp_path / "images" / image.file_name)).shape == (height, width, 3)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["ccrs40"], ["unknown scenario 'ccrs40'", "ccrs-40"]),
        (["town", "--fps", "0"], ["0 frames a second"]),
        (["town", "--size", "32", "32"], ["32x32", "--size"]),
    ],
)
def test_refusals_of_the_tool(run_main, tmp_path: Path, arguments: list[str], words: list[str]) -> None:  # noqa: ANN001
    result = run_main("tools/render_scenario.py", *arguments, "--output", tmp_path / "no.mp4")
    assert_one_line_error(result, *words)
    assert not list(tmp_path.glob("*.mp4"))


def test_list_of_scenarios(run_main) -> None:  # noqa: ANN001  # type: ignore[no-untyped-def]
    result = run_main("tools/render_scenario.py", "--list")
    assert result.returncode == 0, result.stderr
    assert all(row.name in result.stdout for row in scenarios())


def test_refusals(labels: tuple[str, ...], config: Config, tmp_path: Path) -> None:
    with pytest.raises(WorldError, match="lens distortion"):
        Renderer(alone(), replace(CAMERA, distortion=(0.1, 0.0, 0.0, 0.0)))
    with pytest.raises(WorldError, match="unknown weather 'snow'"):
        Renderer(alone(), CAMERA, weather="snow")
    with pytest.raises(WorldError, match="latency"):
        drive(config, labels, alone(), latency_s=-1)
    with pytest.raises(WorldError, match="at least 1"):
        write_dataset(tmp_path, 0, 0, [(160, 120)], labels)
    with pytest.raises(ValueError, match="tram"):
        Target("tram", 10)
    with pytest.raises(ValueError, match="duration_s"):
        alone(duration_s=0)
