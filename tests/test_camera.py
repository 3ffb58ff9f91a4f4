"""Cameras: hand-computed road points, round trips with lens distortion, camera files, and calibration."""

from __future__ import annotations

import csv
import math
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from ssd_triton.common.arrays import UInt8Array
from ssd_triton.common.files import ROOT
from ssd_triton.config import Config
from ssd_triton.driving.camera import Camera, CameraError, RoadPoint, configured_camera, load_camera, save_camera
from ssd_triton.driving.camera.calibrate import calibrate_from_clip, calibrate_from_horizon, write_calibration
from ssd_triton.driving.camera.fit import RoadReference, fit_mounting, look_towards
from ssd_triton.driving.camera.kitti import load_kitti_camera
from ssd_triton.driving.camera.lanes import find_segments, find_vanishing_point
from ssd_triton.driving.camera.picture import draw_metre_grid
from ssd_triton.media.video import VideoWriter, open_source
from tests.conftest import assert_one_line_error

Data = Callable[[str], Path]
RunScript = Callable[..., "subprocess.CompletedProcess[str]"]

LEVEL = Camera.from_fov((1000, 600), horizontal_fov_deg=90, height_m=1.25)
"""Its focal length is 500 px and its horizon row 300."""

BARREL = (-0.3, 0.1, 0.001, -0.001)
"""Lens distortion as a cheap wide-angle lens has it: 13 % at the corners of 1280x720 pixels and 60°."""
PINCUSHION = (0.15, -0.02, -0.0005, 0.001, 0.003)
LENSES = pytest.mark.parametrize("distortion", [(), BARREL, PINCUSHION], ids=["pinhole", "barrel", "pincushion"])


# --- The model -------------------------------------------------------------------------------------------------------


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


# --- Camera files ----------------------------------------------------------------------------------------------------


@LENSES
def test_a_camera_file_holds_a_camera(tmp_path: Path, distortion: tuple[float, ...]) -> None:
    camera = Camera(1242, 375, 721.5377, 720.1, 610.0593, 173.354, 1.65, 1.25, -0.5, distortion)
    path = tmp_path / "made" / "camera.yml"
    save_camera(camera, path, ["method: by hand", "date: 2026-01-01"])
    assert load_camera(path) == camera
    assert path.read_text().startswith("# method: by hand\n# date: 2026-01-01\nwidth_px: 1242 ")
    assert list(path.parent.iterdir()) == [path]


def test_the_example_is_the_configured_camera(config: Config) -> None:
    example = load_camera(ROOT / "cameras/dashcam_1280x720.yml")
    configured = configured_camera(config.camera, (1280, 720))
    assert replace(example, fx_px=0, fy_px=0) == replace(configured, fx_px=0, fy_px=0)
    assert (example.fx_px, example.fy_px) == pytest.approx((configured.fx_px, configured.fy_px))


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ("width_px", "widht_px", ["unknown key 'widht_px'", "did you mean 'width_px'?"]),
        ("height_m: 1.3", "height_m: .nan", ["height_m", "got nan"]),
        ("height_m: 1.3", "height_m: -1.3", ["height_m", "greater than 0"]),
        ("fx_px: 100", "fx_px: .inf", ["fx_px", "got inf"]),
        ("cx_px: 320", "cx_px: left", ["cx_px", "got 'left'"]),
        ("pitch_deg: 0", "pitch_deg: 90", ["pitch_deg", "less than 45"]),
        ("fy_px: 100", "", ["fy_px", "required"]),
        ("distortion: []", "distortion: [0.1, 0.2]", ["distortion", "2 numbers, expected k1, k2, p1, p2"]),
        ("distortion: []", "distortion: [0.1, .nan, 0, 0]", ["distortion.1", "got nan"]),
        ("pitch_deg: 0", "pitch_deg: 0\nheight_m: 2", ["repeated key 'height_m'"]),
        ("width_px", "[", ["not valid YAML"]),
    ],
)
def test_a_camera_file_is_checked(tmp_path: Path, before: str, after: str, words: list[str]) -> None:
    path = tmp_path / "mine.yml"
    save_camera(Camera(640, 360, 100, 100, 320, 180, 1.3), path)
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))
    with pytest.raises(CameraError) as caught:
        load_camera(path)
    for word in ("mine.yml", *words):
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_camera_file(tmp_path: Path) -> None:
    with pytest.raises(CameraError, match=r"cannot read .*none\.yml.*calibrate_camera"):
        load_camera(tmp_path / "none.yml")


def test_what_could_not_be_read_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(CameraError, match=r"camera\.yml: pitch_deg: .*less than 45, got 50"):
        save_camera(Camera.from_fov((640, 360), 60, 1.3, pitch_deg=50), tmp_path / "camera.yml")
    assert list(tmp_path.iterdir()) == []


def test_a_configured_file_is_scaled_or_refused(tmp_path: Path, config: Config) -> None:
    path = tmp_path / "mine.yml"
    save_camera(Camera.from_fov((1280, 720), 75, 1.1, 2), path)
    settings = config.camera.model_copy(update={"file": path})
    assert configured_camera(settings, (640, 360)) == load_camera(path).scaled_to(640, 360)
    with pytest.raises(CameraError, match=r"mine\.yml: got images of 640x480 pixels"):
        configured_camera(settings, (640, 480))


# --- Calibration from points ------------------------------------------------------------------------------------------

CORNERS_M = ((6.0, -1.75), (6.0, 1.75), (15.0, -1.75), (15.0, 1.75), (10.0, 3.5))


def references(camera: Camera, rng: np.random.Generator | None = None, std_px: float = 0.0) -> list[RoadReference]:
    """Road points where a camera sees them, with normal noise."""
    points = []
    for forward_m, lateral_m in CORNERS_M:
        seen = camera.image_point(forward_m, lateral_m)
        assert seen is not None
        noise_px = np.zeros(2) if rng is None else rng.normal(0, std_px, 2)
        points.append(RoadReference(forward_m, lateral_m, *(np.array(seen) + noise_px).tolist()))
    return points


@LENSES
@pytest.mark.parametrize(("height_m", "pitch_deg", "yaw_deg"), [(1.3, 0, 0), (1.2, 5, -3), (2.5, 10, 8), (1.65, -2, 1)])
def test_points_give_the_mounting(
    height_m: float, pitch_deg: float, yaw_deg: float, distortion: tuple[float, ...]
) -> None:
    camera = replace(Camera.from_fov((1280, 720), 60, height_m, pitch_deg, yaw_deg), distortion=distortion)
    intrinsics = replace(camera, height_m=9.0, pitch_deg=30.0, yaw_deg=-20.0)
    exact = fit_mounting(intrinsics, references(camera))
    assert exact.rms_px < 1e-3
    assert exact.camera.height_m == pytest.approx(height_m, abs=1e-4)
    assert exact.camera.pitch_deg == pytest.approx(pitch_deg, abs=1e-3)
    assert exact.camera.yaw_deg == pytest.approx(yaw_deg, abs=1e-3)
    assert replace(exact.camera, height_m=0, pitch_deg=0, yaw_deg=0) == replace(
        intrinsics, height_m=0, pitch_deg=0, yaw_deg=0
    )


def test_noisy_points_give_the_mounting_within_their_noise() -> None:
    camera = Camera.from_fov((1280, 720), 60, 1.3, 2.0, -1.0)
    rng = np.random.default_rng(0)
    fits = [fit_mounting(camera, references(camera, rng, 0.5)) for _ in range(40)]
    errors = np.array(
        [(fit.camera.height_m - 1.3, fit.camera.pitch_deg - 2.0, fit.camera.yaw_deg + 1.0) for fit in fits]
    )
    # At half a pixel of noise: 2 cm, 0.12° and 0.06° in the worst of 40, and no bias.
    assert (np.abs(errors).max(axis=0) < (0.02, 0.12, 0.06)).all()
    assert (np.abs(errors.mean(axis=0)) < (0.004, 0.02, 0.01)).all()
    # The stated standard deviations are those of the errors.
    stated = np.median([(fit.height_std_m, fit.pitch_std_deg, fit.yaw_std_deg) for fit in fits], axis=0)
    assert (np.abs(stated / errors.std(axis=0) - 1) < 0.35).all()
    assert np.median([fit.rms_px for fit in fits]) == pytest.approx(0.6, abs=0.15)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda points: [], ["got 0 points, expected 4 or more"]),
        (lambda points: points[:3], ["got 3 points, expected 4 or more"]),
        (lambda points: [*points[:3], points[0]], ["same point on the road twice"]),
        (lambda points: [point._replace(x_px=600.0, y_px=400.0) for point in points], ["same point in the image"]),
        (
            lambda points: [p._replace(forward_m=5.0 * i, lateral_m=0.5 * i) for i, p in enumerate(points)],
            ["lie on a line"],
        ),
        (lambda points: [points[0]._replace(x_px=math.nan), *points[1:]], ["nan or inf"]),
        (lambda points: [point._replace(lateral_m=-point.lateral_m) for point in points], ["from below the road"]),
        (lambda points: [point._replace(y_px=720 - point.y_px) for point in points], ["from below the road"]),
        (lambda points: [points[0]._replace(x_px=450.0), *points[1:]], ["fit no camera", "reprojection error"]),
        (lambda points: [points[0]._replace(x_px=900.0), *points[1:]], ["fit no camera"]),
    ],
    ids=[
        "none",
        "three",
        "twice",
        "one pixel",
        "line",
        "nan",
        "mirrored",
        "upside down",
        "typing error",
        "gross error",
    ],
)
def test_points_that_do_not_do(change: Callable[[list[RoadReference]], list[RoadReference]], words: list[str]) -> None:
    camera = Camera.from_fov((1280, 720), 60, 1.3, 2.0, -1.0)
    with pytest.raises(CameraError) as caught:
        fit_mounting(camera, change(references(camera)))
    for word in words:
        assert word in str(caught.value)


# --- Calibration from the horizon -------------------------------------------------------------------------------------


@LENSES
@pytest.mark.parametrize(("pitch_deg", "yaw_deg"), [(0.0, 0.0), (3.0, -2.0), (-6.0, 5.0)])
def test_the_vanishing_point_gives_pitch_and_yaw(
    pitch_deg: float, yaw_deg: float, distortion: tuple[float, ...]
) -> None:
    camera = replace(Camera.from_fov((1280, 720), 60, 1.3, pitch_deg, yaw_deg), distortion=distortion)
    seen = camera.image_point(1e7, 0.0)
    assert seen is not None
    image_rgb = np.zeros((720, 1280, 3), np.uint8)
    found = calibrate_from_horizon(replace(camera, pitch_deg=9, yaw_deg=9), seen.y_px, seen.x_px, image_rgb).camera
    assert found.pitch_deg == pytest.approx(pitch_deg, abs=1e-3)
    assert found.yaw_deg == pytest.approx(yaw_deg, abs=1e-3)
    assert found.height_m == 1.3


def test_the_horizon_alone_leaves_the_yaw_at_0() -> None:
    image_rgb = np.zeros((600, 1000, 3), np.uint8)
    found = calibrate_from_horizon(replace(LEVEL, yaw_deg=3), 300 - 500 * math.tan(math.radians(4)), None, image_rgb)
    assert (found.camera.pitch_deg, found.camera.yaw_deg) == (pytest.approx(4), 0)
    assert found.camera.horizon_y_px == pytest.approx(300 - 500 * math.tan(math.radians(4)))


# --- Calibration from a clip -----------------------------------------------------------------------------------------


def draw_road(camera: Camera, travelled_m: float, rng: np.random.Generator) -> UInt8Array:
    """A straight road with two solid lines and a dashed one, noise, and clutter above and beside it."""
    image = np.full((camera.height_px, camera.width_px, 3), 95, np.uint8)
    horizon_px = round(camera.horizon_y_px)
    image[:horizon_px] = (190, 170, 150)
    stripes = [(-1.85, 3.0, 80.0), (5.25, 3.0, 80.0)]
    stripes += [(1.75, start_m, start_m + 4) for start_m in np.arange(12 - travelled_m % 12, 60, 12)]
    for lateral_m, near_m, far_m in stripes:
        along_m = np.geomspace(near_m, far_m, 40)
        edges = [np.column_stack([along_m, np.full(40, lateral_m + side_m), np.zeros(40)]) for side_m in (-0.07, 0.07)]
        outline_px = camera.image_points(np.concatenate([edges[0], edges[1][::-1]]).astype(np.float32))
        outline_px = outline_px[np.isfinite(outline_px[:, 0])]
        cv2.fillPoly(image, [np.round((outline_px - 0.5) * 16).astype(np.int32)], (230, 230, 230), cv2.LINE_AA, 4)
    for _ in range(25):
        x, y = rng.integers(0, camera.width_px), rng.integers(horizon_px - 60, horizon_px + 60)
        angle, length_px = rng.uniform(0, np.pi), rng.uniform(10, 40)
        end = (int(x + length_px * np.cos(angle)), int(y + length_px * np.sin(angle)))
        cv2.line(image, (int(x), int(y)), end, (60, 90, 50), 2, cv2.LINE_AA)
    return np.clip(image + rng.normal(0, 4, image.shape), 0, 255).astype(np.uint8)


@LENSES
@pytest.mark.parametrize(("pitch_deg", "yaw_deg"), [(0.0, 0.0), (3.0, -2.0), (-4.0, 3.0)])
def test_lane_lines_give_pitch_and_yaw(pitch_deg: float, yaw_deg: float, distortion: tuple[float, ...]) -> None:
    camera = replace(Camera.from_fov((960, 540), 60, 1.3, pitch_deg, yaw_deg), distortion=distortion)
    rng = np.random.default_rng(3)
    segments = [find_segments(draw_road(camera, 1.7 * frame, rng), camera) for frame in range(5)]
    found = find_vanishing_point(segments, (960, 540))
    assert found.frames == 5
    assert found.supporting_frames >= 3
    towards = look_towards(camera, *found.point)
    assert towards.pitch_deg == pytest.approx(pitch_deg, abs=0.15)
    assert towards.yaw_deg == pytest.approx(yaw_deg, abs=0.15)
    assert max(found.std_px) < 2
    assert found.segments_px.shape == (len(found.frame_indices), 4)


def test_the_pitch_follows_the_car_s_nodding() -> None:
    # Half a degree up and down: the mean counts, and the spread shows in the standard deviation.
    rng = np.random.default_rng(4)
    cameras = [Camera.from_fov((960, 540), 60, 1.3, 1 + 0.5 * math.sin(0.7 * frame)) for frame in range(14)]
    segments = [find_segments(draw_road(camera, 1.7 * i, rng), camera) for i, camera in enumerate(cameras)]
    found = find_vanishing_point(segments, (960, 540))
    mean_deg = float(np.mean([camera.pitch_deg for camera in cameras]))
    assert look_towards(cameras[0], *found.point).pitch_deg == pytest.approx(mean_deg, abs=0.25)
    assert 0.3 < found.std_px[1] < 4


def clutter(rng: np.random.Generator) -> UInt8Array:
    """Segments of every direction."""
    image = np.full((540, 960, 3), 120, np.uint8)
    for _ in range(60):
        x, y, length_px = rng.uniform(0, 960), rng.uniform(200, 540), rng.uniform(40, 200)
        angle = rng.uniform(0, np.pi)
        end = (int(x + length_px * np.cos(angle)), int(y + length_px * np.sin(angle)))
        cv2.line(image, (int(x), int(y)), end, rng.integers(0, 255, 3).tolist(), 2, cv2.LINE_AA)
    return image


@pytest.mark.parametrize(
    ("draw", "frames", "words"),
    [
        (clutter, 0, "got 0 frames, expected 3 or more"),
        (clutter, 2, "got 2 frames, expected 3 or more"),
        (lambda rng: np.full((540, 960, 3), 120, np.uint8), 5, "no segments in 5 frames"),
        (lambda rng: rng.integers(0, 255, (540, 960, 3)).astype(np.uint8), 5, "no segments in 5 frames"),
        (clutter, 15, "of 15 frames"),
    ],
    ids=["empty", "two", "grey", "noise", "clutter"],
)
def test_a_clip_without_lanes(draw: Callable[[np.random.Generator], UInt8Array], frames: int, words: str) -> None:
    rng = np.random.default_rng(5)
    segments = [find_segments(draw(rng), Camera.from_fov((960, 540), 60, 1.3)) for _ in range(frames)]
    with pytest.raises(CameraError) as caught:
        find_vanishing_point(segments, (960, 540))
    assert "no lane lines found" in str(caught.value)
    assert words in str(caught.value)


def test_lane_lines_of_a_real_clip(data: Data) -> None:
    with open_source(str(data("clips/udacity_solidWhiteRight.mp4")), image_folder_fps=10) as source:
        found = calibrate_from_clip(Camera.from_fov((960, 540), 60, 1.3), source, 15).camera
    seen = found.image_point(1e7, 0.0)
    assert seen is not None
    # In frame 10 the white line's edge runs through (491, 318) and (840, 540), the dash to the left through (336, 408)
    # and (262, 460): they meet in (477, 308). Another frame differs by a few pixels, as the car pitches.
    assert seen == pytest.approx((480, 307), abs=8)


def test_kitti_s_road_vanishes_where_its_calibration_has_it(data: Data) -> None:
    with open_source(str(data("kitti_approach/images")), image_folder_fps=10) as source:
        found = calibrate_from_clip(load_kitti_camera(data("kitti_approach/calib.txt"), (1242, 375)), source, 12).camera
    # Its camera is mounted level and straight ahead, to a few tenths of a degree.
    assert found.pitch_deg == pytest.approx(0, abs=0.4)
    assert found.yaw_deg == pytest.approx(0, abs=0.7)


# --- The picture and the command --------------------------------------------------------------------------------------


@LENSES
@pytest.mark.parametrize("pitch_deg", [-40.0, 0.0, 40.0])
@pytest.mark.parametrize("size_px", [(640, 360), (64, 48)])
def test_the_grid_can_always_be_drawn(
    size_px: tuple[int, int], pitch_deg: float, distortion: tuple[float, ...]
) -> None:
    camera = replace(Camera.from_fov(size_px, 60, 1.3, pitch_deg), distortion=distortion)
    image = np.full((size_px[1], size_px[0], 3), 100, np.uint8)
    drawn = draw_metre_grid(image, camera, 1.1, title="grid")
    assert drawn.shape == image.shape
    assert (image == 100).all()


def test_the_grid_lies_where_the_camera_sees_it() -> None:
    camera = Camera.from_fov((1280, 720), 60, 1.3, 2.0)
    drawn = draw_metre_grid(np.full((720, 1280, 3), 100, np.uint8), camera, 1.1)
    for point in (RoadPoint(10.0, 4.0), RoadPoint(15.0, -4.2), RoadPoint(9.0, 1.75)):
        seen = camera.image_point(*point)
        assert seen is not None
        patch = drawn[round(seen.y_px) - 2 : round(seen.y_px) + 2, round(seen.x_px) - 2 : round(seen.x_px) + 2]
        assert (patch != 100).any()
    between = camera.image_point(7.5, 2.6)
    assert between is not None
    assert (drawn[round(between.y_px), round(between.x_px)] == 100).all()


def test_a_calibration_is_written_whole(tmp_path: Path) -> None:
    image_rgb = np.full((600, 1000, 3), 100, np.uint8)
    calibration = calibrate_from_horizon(LEVEL, 280.0, 490.0, image_rgb)
    picture = write_calibration(calibration, tmp_path / "mine.yml", 1.1)
    assert load_camera(tmp_path / "mine.yml").horizon_y_px == pytest.approx(280)
    with Image.open(picture) as written:
        assert written.size == (1000, 600)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.png", "mine.yml"]


def test_the_command_calibrates_from_points(run_script: RunScript, tmp_path: Path) -> None:
    camera = Camera.from_fov((1280, 720), 60, 1.3, 2.0, -1.0)
    Image.fromarray(np.full((720, 1280, 3), 100, np.uint8)).save(tmp_path / "frame.png")
    points = [
        value for point in references(camera)[:4] for value in ("--point", *(f"{number:.2f}" for number in point))
    ]
    result = run_script(
        "tools/calibrate_camera.py", "points", "--video", "frame.png", "--horizontal-fov-deg", 60, *points
    )
    assert result.returncode == 0, result.stderr
    assert "reprojection error" in result.stdout
    assert "reports/camera.yml\nreports/camera.png" in result.stdout
    found = load_camera(tmp_path / "reports/camera.yml")
    assert (found.height_m, found.pitch_deg, found.yaw_deg) == pytest.approx((1.3, 2.0, -1.0), abs=0.03)
    assert "# method: 4 road points, reprojection error" in (tmp_path / "reports/camera.yml").read_text()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ("points --video grey.mp4 --point 6 0 1 nan", 2, ["--point", "got nan"]),
        ("points --video grey.mp4 --at-s 9", 1, ["got --at-s 9, expected at most 0.16"]),
        ("horizon --video grey.mp4 --horizon-y-px 90 --camera square.yml", 1, ["square.yml", "same aspect"]),
        ("horizon --video grey.mp4 --horizon-y-px -900", 1, ["camera.yml: pitch_deg", "less than 45"]),
        ("horizon --video grey.mp4 --horizon-y-px 90 --output camera.png", 1, ["got camera.png, expected a file .yml"]),
        ("clip --video grey.mp4", 1, ["no lane lines found"]),
    ],
)
def test_the_command_refuses(run_main: RunScript, tmp_path: Path, arguments: str, code: int, words: list[str]) -> None:
    with VideoWriter(tmp_path / "grey.mp4", (320, 180), 25) as writer:
        for frame in range(5):
            writer.write(np.full((180, 320, 3), 90, np.uint8), frame / 25)
    save_camera(Camera.from_fov((200, 200), 60, 1.3), tmp_path / "square.yml")
    result = run_main("tools/calibrate_camera.py", *arguments.split())
    assert result.returncode == code
    if code == 1:
        assert_one_line_error(result, *words)
    for word in words:
        assert word in result.stderr
    assert not (tmp_path / "reports").exists()
