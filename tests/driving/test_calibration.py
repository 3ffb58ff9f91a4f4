"""Calibration from points, from the horizon and from a clip, and its command."""

from __future__ import annotations

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
from ssd_triton.driving.camera import Camera, CameraError, RoadPoint, load_camera, save_camera
from ssd_triton.driving.camera.calibrate import calibrate_from_clip, calibrate_from_horizon, write_calibration
from ssd_triton.driving.camera.calibration_picture import draw_metre_grid
from ssd_triton.driving.camera.mounting import RoadReference, fit_mounting, look_towards
from ssd_triton.driving.camera.vanishing_point import find_segments, find_vanishing_point
from ssd_triton.media.video import VideoWriter, open_source
from tests.conftest import assert_one_line_error
from tests.driving.cameras import LENSES, LEVEL
from tests.driving.kitti import load_kitti_camera

Data = Callable[[str], Path]
RunScript = Callable[..., "subprocess.CompletedProcess[str]"]

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


# --- Calibration from a clip ------------------------------------------------------------------------------------------


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
@pytest.mark.slow
def test_a_clip_without_lanes(draw: Callable[[np.random.Generator], UInt8Array], frames: int, words: str) -> None:
    rng = np.random.default_rng(5)
    segments = [find_segments(draw(rng), Camera.from_fov((960, 540), 60, 1.3)) for _ in range(frames)]
    with pytest.raises(CameraError) as caught:
        find_vanishing_point(segments, (960, 540))
    assert "no lane lines found" in str(caught.value)
    assert words in str(caught.value)


@pytest.mark.slow
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
        ("points --video grey.mp4 --point 6 0 1 nan", 2, ["--point", "got 'nan'"]),
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
