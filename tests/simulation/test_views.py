"""What the camera sees of the simulated world: boxes, noise, pictures."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache

import cv2
import numpy as np
import pytest

from ssd_triton.common.detections import Detections
from ssd_triton.config import Config, DetectionNoiseConfig
from ssd_triton.driving.braking.ego import EgoMotion
from ssd_triton.driving.braking.state import State
from ssd_triton.simulation import Target, find_scenario
from ssd_triton.simulation.rendering.renderer import Renderer
from ssd_triton.simulation.rendering.weather import WEATHERS
from ssd_triton.simulation.simulate import Disturbance
from ssd_triton.simulation.visible_targets import visible_targets
from tests.simulation.helpers import CAMERA, SMALL, alone, brake_from, drive

NO_NOISE = DetectionNoiseConfig(box_px=0, miss_rate=0, min_visible_share=0, min_height_px=0)


@lru_cache(maxsize=2)
def _without_shadows(weather: str) -> Renderer:
    return Renderer(alone(), CAMERA, weather=weather, seed=7, shadows=False)


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
    (seen,) = visible_targets(run.frames[0].targets, run.frames[0].ego, CAMERA)
    focal_px = 640 / math.tan(math.radians(30))
    assert seen.range_m == pytest.approx(10.0, abs=0.05)
    left, top, right, _ = seen.box_xyxy
    assert left == pytest.approx(640 - focal_px * 1.25 / 10.0, abs=2)
    assert right == pytest.approx(640 + focal_px * 1.25 / 10.0, abs=2)
    assert top == pytest.approx(360 - focal_px * (3.5 - 1.3) / 10.0, abs=2)
    assert seen.visible_share == 1


def test_boxes_are_cut_off_at_the_border(config: Config, labels: tuple[str, ...]) -> None:
    run = drive(config, labels, alone(Target("saloon", 2.0, -2.5), Target("adult", 3.0, 30.0)))
    (seen,) = visible_targets(run.frames[0].targets, run.frames[0].ego, CAMERA)
    assert seen.box_xyxy[0] == 0
    assert 0 < seen.visible_share < 1


def test_nearer_targets_hide_others(config: Config, labels: tuple[str, ...]) -> None:
    hidden = Target("adult", 20.0, 0.0)
    run = drive(config, labels, alone(hidden, Target("truck", 8.0), Target("adult", 20.0, 6.0)))
    seen = {item.index: item for item in visible_targets(run.frames[0].targets, run.frames[0].ego, CAMERA)}
    assert set(seen) == {1, 2}
    half = drive(config, labels, alone(Target("hatchback", 20.0, 2.6), Target("truck", 8.0)))
    seen = {item.index: item for item in visible_targets(half.frames[0].targets, half.frames[0].ego, CAMERA)}
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
    full = config.simulation.pitch.deg_per_mps2 * config.simulation.brakes.max_deceleration_mps2
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
    (seen,) = visible_targets(frame.targets, frame.ego, frame.camera)
    difference = cv2.absdiff(renderer.draw(frame), renderer.draw(replace(frame, targets=()))).max(axis=2)
    rows, columns = np.nonzero(difference > 12)
    drawn = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
    np.testing.assert_allclose(drawn, seen.box_xyxy, atol=2.0)


@pytest.mark.parametrize("weather", list(WEATHERS))
@pytest.mark.slow
def test_pictures_of_all_weathers(config: Config, labels: tuple[str, ...], weather: str) -> None:
    frame = replace(drive(config, labels, find_scenario("town")).frames[10], camera=SMALL)
    picture = Renderer(frame.scenario, SMALL, weather=weather, seed=1).draw(frame)
    assert 25 < picture.mean() < 230
    assert picture.std() > 15


@pytest.mark.slow
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
