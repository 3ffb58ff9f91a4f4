"""Properties of range and closing speed: no estimate leaves what its boxes allow, and its uncertainty is honest."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from ssd_triton.common.detections import Detections
from ssd_triton.config import Config
from ssd_triton.driving.braking.decision import TrackedObject
from ssd_triton.driving.braking.ego import EgoMotion
from ssd_triton.driving.braking.pipeline import BrakingPipeline
from ssd_triton.driving.braking.state import State
from ssd_triton.driving.camera import Camera
from tests.driving.boxes import RoadUser, detections_of

CAMERA = Camera.from_fov((960, 540), horizontal_fov_deg=60, height_m=1.3)
FPS = 10
EGO_MPS = 50 / 3.6

Box = tuple[float, float, float, float]
SIZES_M = {
    "person": (0.5, 1.75, 0.5),
    "bicycle": (0.6, 1.1, 1.7),
    "car": (1.75, 1.5, 4.4),
    "motorcycle": (0.8, 1.2, 2.1),
    "bus": (2.55, 3.1, 11.0),
    "truck": (2.4, 3.0, 7.0),
}


def constant(
    config: Config, labels: tuple[str, ...], class_name: str, box: Box
) -> Iterator[tuple[State, TrackedObject]]:
    """A box that never changes, for 3 s at 50 km/h."""
    pipeline = BrakingPipeline(CAMERA, labels, config.braking, config.tracking)
    found = Detections(
        np.array([box], np.float32), np.array([0.9], np.float32), np.array([labels.index(class_name)], np.int32)
    )
    for frame in range(3 * FPS):
        decision = pipeline.step(frame / FPS, found, EgoMotion(EGO_MPS))
        for item in decision.objects:
            yield decision.state, item


@pytest.mark.parametrize("class_name", SIZES_M)
@pytest.mark.parametrize(("height_px", "bottom_px"), [(26, 326), (60, 300), (60, 380), (120, 326)])
def test_a_constant_box_keeps_its_range(
    config: Config, labels: tuple[str, ...], class_name: str, height_px: int, bottom_px: int
) -> None:
    """The range stays between those by ground contact and by size, and nothing closes in that does not grow.

    Ground contact and size are allowed three standard deviations: of the pitch, and of the class's size.
    """
    width_m, height_m, _ = SIZES_M[class_name]
    half_px = height_px * width_m / height_m / 2
    *_, (_, item) = constant(
        config, labels, class_name, (480 - half_px, bottom_px - height_px, 480 + half_px, bottom_px)
    )
    assert item.range_from_size_m is not None
    size = config.tracking.object_sizes[class_name]
    near_m, far_m = (item.range_from_size_m * math.exp(sign * 3 * size.height_spread) for sign in (-1, 1))
    for pitch_rad in (-3 * CAMERA.pitch_std_rad, 3 * CAMERA.pitch_std_rad):
        down = (bottom_px - 270) / CAMERA.fy_px - pitch_rad
        ground_m = CAMERA.height_m / down if down > 0 else math.inf
        near_m, far_m = min(near_m, ground_m - size.overhang_m), max(far_m, ground_m)
    assert near_m - 0.5 <= item.range_m <= far_m + 0.5
    assert item.closing_speed_mps < 3 * item.closing_speed_std_mps + 0.5
    assert abs(item.closing_speed_mps) < 2.5


def test_a_person_who_keeps_the_distance_of_a_car_warns_of_nothing(config: Config, labels: tuple[str, ...]) -> None:
    """Half as high as people are: ground contact and size contradict each other, and no range may run away."""
    for state, item in constant(config, labels, "person", (470, 300, 489, 326)):
        assert state < State.WARN
        assert item.range_m > 15


Disturbance = Callable[[int], tuple[Camera, float]]


def steady(frame: int) -> tuple[Camera, float]:
    return CAMERA, 1.0


def breathing(frame: int) -> tuple[Camera, float]:
    return CAMERA, 1 + 0.1 * math.sin(frame * 1.8)


def bumps(frame: int) -> tuple[Camera, float]:
    """Pitch of the car on its springs after a bump in each second."""
    since_s = frame % FPS / FPS
    return CAMERA.with_pitch(0.8 * math.exp(-3 * since_s) * math.sin(8 * since_s)), 1.0


@pytest.mark.parametrize("disturbed", [steady, breathing, bumps])
@pytest.mark.parametrize(
    ("class_name", "object_mps"), [("person", 0.0), ("car", 0.0), ("car", 8.0), ("car", EGO_MPS), ("truck", 0.0)]
)
def test_errors_stay_within_three_standard_deviations(
    config: Config, labels: tuple[str, ...], class_name: str, object_mps: float, disturbed: Disturbance
) -> None:
    """In 99 of 100 frames, for range and closing speed, with a fifth of the frames missing."""
    errors = []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        pipeline = BrakingPipeline(CAMERA, labels, config.braking, config.tracking)
        size_m = tuple(side * float(rng.normal(1, 0.05)) for side in SIZES_M[class_name])
        for frame in range(4 * FPS):
            range_m = 65.0 - (EGO_MPS - object_mps) * frame / FPS
            user = RoadUser(range_m, 0.3, class_name, (size_m[0], size_m[1], size_m[2]))
            camera, scale = disturbed(frame)
            found = detections_of(camera, labels, user, noise_px=1.5, rng=rng)
            middles = (found.boxes_xyxy[:, :2] + found.boxes_xyxy[:, 2:]) / 2
            boxes = np.tile(middles, 2) + scale * (found.boxes_xyxy - np.tile(middles, 2))
            found = Detections(boxes.astype(np.float32), found.scores, found.class_ids)
            shown = Detections.empty() if rng.random() < 0.2 else found
            for item in pipeline.step(frame / FPS, shown, EgoMotion(EGO_MPS)).objects:
                errors.append((item.range_m - range_m) / item.range_std_m)
                errors.append((item.closing_speed_mps - EGO_MPS + object_mps) / item.closing_speed_std_mps)
    assert len(errors) > 150
    assert np.mean(np.abs(errors) < 3) >= 0.99
