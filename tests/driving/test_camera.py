"""The camera model: hand-computed road points, and round trips with lens distortion."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ssd_triton.driving.camera import Camera, CameraError
from tests.driving.cameras import BARREL, LENSES, LEVEL
from tests.driving.kitti import load_kitti_camera

Data = Callable[[str], Path]


def test_no_points() -> None:
    camera = replace(LEVEL, distortion=BARREL)
    for one in (LEVEL, camera):
        assert one.road_points(np.zeros((0, 2), np.float32)).shape == (0, 2)
        assert one.image_points(np.zeros((0, 3), np.float32)).shape == (0, 2)


def test_focal_length_and_horizon() -> None:
    assert LEVEL.fx_px == LEVEL.fy_px == pytest.approx(500)
    assert LEVEL.horizon_y_px == 300
    assert LEVEL.with_pitch(10).horizon_y_px == pytest.approx(300 - 500 * math.tan(math.radians(10)))


@pytest.mark.parametrize(
    ("x_px", "y_px", "expected"),
    [
        # Range: 1.25 m · 500 px / rows below the horizon; to the side: columns / 500 px · range.
        (500, 350, (12.5, 0.0)),
        (540, 350, (12.5, 1.0)),
        (460, 350, (12.5, -1.0)),
        (500, 425, (5.0, 0.0)),
        (500, 600, (2.0833333, 0.0)),
        (500, 800, (1.25, 0.0)),
        (500, 301, (625.0, 0.0)),
        (500, 300, None),
        (500, 299, None),
        (500, 0, None),
        (math.nan, 350, None),
        (500, math.nan, None),
    ],
)
def test_road_point_of_a_level_camera(x_px: float, y_px: float, expected: tuple[float, float] | None) -> None:
    point = LEVEL.road_point(x_px, y_px)
    assert point == (None if expected is None else pytest.approx(expected))


@pytest.mark.parametrize(
    ("pitch_deg", "y_px", "forward_m"),
    [
        # The axis meets the road at height / tan(pitch); 45° above it the ray is level.
        (30, 300, 1.25 / math.tan(math.radians(30))),
        (10, 300, 1.25 / math.tan(math.radians(10))),
        (30, 300 + 500 * math.tan(math.radians(15)), 1.25),
        (30, 300 - 500 * math.tan(math.radians(30)) - 0.01, None),
        (-10, 300, None),
        (-10, 300 + 500 * math.tan(math.radians(55)), 1.25),
    ],
)
def test_road_point_of_a_tilted_camera(pitch_deg: float, y_px: float, forward_m: float | None) -> None:
    point = LEVEL.with_pitch(pitch_deg).road_point(500, y_px)
    assert (None if point is None else point.forward_m) == (None if forward_m is None else pytest.approx(forward_m))


@pytest.mark.parametrize("pitch_deg", [0.0, 4.0, -4.0])
def test_yaw_turns_the_road(pitch_deg: float) -> None:
    # Looking 10° to the right, the axis' column sees points on a ray 10° to the right of the heading.
    camera = replace(LEVEL, yaw_deg=10.0, pitch_deg=pitch_deg)
    point = camera.road_point(500, 450)
    assert point is not None
    assert math.degrees(math.atan2(point.lateral_m, point.forward_m)) == pytest.approx(10)
    straight = LEVEL.with_pitch(pitch_deg).road_point(500, 450)
    assert straight is not None
    assert math.hypot(*point) == pytest.approx(straight.forward_m)
    # A point straight ahead then lies in the left half of the image.
    ahead = camera.image_point(20, 0)
    assert ahead is not None
    assert ahead.x_px < 500


@LENSES
@pytest.mark.parametrize("yaw_deg", [-6.0, 0.0, 2.5])
@pytest.mark.parametrize("pitch_deg", [-5.0, 0.0, 1.16, 15.0])
def test_road_to_image_and_back(pitch_deg: float, yaw_deg: float, distortion: tuple[float, ...]) -> None:
    camera = replace(
        Camera.from_fov((1242, 375), 81.4, 1.65, pitch_deg, yaw_deg), cx_px=609.6, cy_px=172.9, distortion=distortion
    )
    for forward_m, lateral_m in [(6.0, 0.0), (8.0, -2.5), (30.0, 4.0), (120.0, -0.1)]:
        seen = camera.image_point(forward_m, lateral_m)
        assert seen is not None
        assert camera.road_point(*seen) == pytest.approx((forward_m, lateral_m), rel=1e-4, abs=1e-4)


@LENSES
def test_pixels_to_the_road_and_back(distortion: tuple[float, ...]) -> None:
    camera = replace(Camera.from_fov((1280, 720), 60, 1.3, 3, -2), distortion=distortion)
    x_px, y_px = np.meshgrid(np.linspace(0, 1280, 21), np.linspace(360, 720, 13))
    points_px = np.column_stack([x_px.ravel(), y_px.ravel()])
    road_m = np.array([camera.road_point(x, y) for x, y in points_px])
    back_px = np.array([camera.image_point(forward, lateral) for forward, lateral in road_m])
    assert np.abs(back_px - points_px).max() < 1e-3


@LENSES
def test_many_points_are_as_single_ones(distortion: tuple[float, ...]) -> None:
    camera = replace(Camera.from_fov((1280, 720), 60, 1.3, 3, -2), distortion=distortion)
    points_px = np.array([(640, 700), (3, 500), (1200, 450), (640, 10)], np.float32)
    road_m = camera.road_points(points_px)
    assert road_m.dtype == np.float32
    for point_px, point_m in zip(points_px.tolist(), road_m, strict=True):
        single = camera.road_point(*point_px)
        np.testing.assert_allclose(point_m, (np.nan, np.nan) if single is None else single, rtol=1e-5)
    assert np.isnan(road_m[3]).all()
    points_m = np.array([(10, 0, 0), (10, 1, 1.5), (-3, 0, 0)], np.float32)
    image_px = camera.image_points(points_m)
    assert image_px.dtype == np.float32
    for point_m, point_px in zip(points_m.tolist(), image_px, strict=True):
        seen = camera.image_point(*point_m)
        np.testing.assert_allclose(point_px, (np.nan, np.nan) if seen is None else seen, rtol=1e-5)
    assert np.isnan(image_px[2]).all()


def test_a_point_above_the_road_is_seen_higher() -> None:
    # 10 m ahead and as high as the lens: on the horizon, whatever the distance.
    for forward_m in (5.0, 10.0, 40.0):
        seen = LEVEL.image_point(forward_m, 1.0, up_m=1.25)
        assert seen == pytest.approx((500 + 500 / forward_m, 300))


def test_a_point_behind_the_camera_is_not_in_the_image() -> None:
    assert LEVEL.image_point(-1.0, 0.0) is None
    assert LEVEL.image_point(0.0, 0.0) is None


def test_the_lens_model_does_not_fold_back() -> None:
    # Beyond 1.05 focal lengths from the axis, r·(1 - 0.3·r²) falls again: a point far to the side would be seen inside.
    camera = replace(LEVEL, distortion=(-0.3, 0.0, 0.0, 0.0))
    assert camera.image_point(10.0, 10.0) is not None
    assert camera.image_point(10.0, 15.0) is None
    # What the lens model never reaches is seen from nowhere.
    assert camera.road_point(0.0, 600.0) is None


def test_distortion_is_that_of_opencv() -> None:
    camera = replace(Camera.from_fov((1280, 720), 60, 1.3), distortion=BARREL)
    seen = camera.image_point(10.0, 3.0)
    x, y = 0.3, 0.13
    r2 = x * x + y * y
    radial = 1 + BARREL[0] * r2 + BARREL[1] * r2 * r2
    p1, p2 = BARREL[2:]
    expected = (
        640 + camera.fx_px * (x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x)),
        360 + camera.fy_px * (y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y),
    )
    assert seen == pytest.approx(expected)


def test_half_a_degree_of_pitch_turns_30_m_into_38_m() -> None:
    camera = Camera.from_fov((1000, 600), 90, 1.2)
    seen = camera.image_point(30.0, 0.0)
    assert seen is not None
    believed = camera.with_pitch(-0.5).road_point(*seen)
    assert believed is not None
    assert believed.forward_m == pytest.approx(38.4, abs=0.1)


@pytest.mark.parametrize(("size_px", "fits"), [((640, 360), True), ((1920, 1088), True), ((960, 720), False)])
def test_scaling(size_px: tuple[int, int], fits: bool) -> None:
    camera = replace(Camera.from_fov((1280, 720), 60, 1.3, 2, 1), cx_px=650.0, cy_px=350.0, distortion=BARREL)
    if not fits:
        with pytest.raises(CameraError, match=r"got images of 960x720 pixels, expected 1280x720 .*same aspect"):
            camera.scaled_to(*size_px)
        return
    scaled = camera.scaled_to(*size_px)
    assert (scaled.width_px, scaled.height_px) == size_px
    here, there = camera.image_point(12, 1.5), scaled.image_point(12, 1.5)
    assert here is not None
    assert there == pytest.approx((here.x_px * size_px[0] / 1280, here.y_px * size_px[1] / 720))


def test_kitti_lead_car_stands_where_the_lidar_sees_it(data: Data) -> None:
    camera = load_kitti_camera(data("kitti_approach/calib.txt"), (1242, 375))
    with data("kitti_approach/lidar_truth.csv").open() as file:
        truth = list(csv.DictReader(file))
    # Where the rear wheels of the lead car meet the road, read off two frames by eye, ±2 px.
    for frame, y_px in ((0, 314), (25, 350)):
        wheels = camera.road_point(628, y_px)
        assert wheels is not None
        # The lidar stands 0.27 m behind the camera and sees the bumper, behind which the wheels stand by 0.7 m or so.
        bumper_m = float(truth[frame]["median_x_m"]) - 0.27
        assert 0.3 < wheels.forward_m - bumper_m < 1.1


@pytest.mark.parametrize("text", ["", "P_rect_01: 1 2 3", "P_rect_00: 1 2 3", "P_rect_00: a b c d e f g h i j k l"])
def test_a_file_without_kitti_s_matrix(tmp_path: Path, text: str) -> None:
    (tmp_path / "calib.txt").write_text(text)
    with pytest.raises(CameraError, match=r"calib\.txt: expected a line P_rect_00 of 12 numbers"):
        load_kitti_camera(tmp_path / "calib.txt", (1242, 375))
    with pytest.raises(CameraError, match=r"cannot read .*none\.txt"):
        load_kitti_camera(tmp_path / "none.txt", (1242, 375))
