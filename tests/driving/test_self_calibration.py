"""Calibration by the drive itself, cuts, and speeds that the picture contradicts."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from ssd_triton.common.arrays import UInt8Array
from ssd_triton.config import Config
from ssd_triton.driving.braking.ego import ConstantEgo, EgoMotion
from ssd_triton.driving.camera import Camera, configured_camera
from ssd_triton.driving.camera.self_calibration import presumed
from ssd_triton.driving.demo.picture_watch import PictureWatch
from ssd_triton.media.video import VideoWriter, open_source
from ssd_triton.simulation import find_scenario
from ssd_triton.simulation.rendered_drive import RenderedDrive
from tests.driving.demo import Detector, demo_settings, events_of, run_with

pytestmark = pytest.mark.slow

SIZE_PX, PITCH_DEG, YAW_DEG = (640, 360), -3.0, 1.0
STEP_S = 0.2
Data = Callable[[str], Path]
MOVING = EgoMotion(14.0)


@pytest.fixture(scope="module")
def drive(config: Config) -> list[UInt8Array]:
    """Frames of a drive through the rendered town, 0.2 s apart, of a camera that looks up and to the right."""
    camera = Camera.from_fov(SIZE_PX, 60, 1.3, PITCH_DEG, YAW_DEG)
    source = RenderedDrive(
        find_scenario("town"),
        camera,
        config.simulation,
        front_overhang_m=1.5,
        fps=1 / STEP_S,
        latency_s=0.1,
        seed=1,
    )
    return [frame.image_rgb for frame, _ in zip(source, range(7), strict=False)]


def watched(images_rgb: list[UInt8Array], ego: EgoMotion = MOVING) -> PictureWatch:
    height_px, width_px = images_rgb[0].shape[:2]
    watch = PictureWatch(presumed(Camera.from_fov((width_px, height_px), 60, 1.3)), "field of view assumed")
    for number, image_rgb in enumerate(images_rgb):
        watch.look(number * STEP_S, image_rgb, ego)
    return watch


def test_a_drive_calibrates_its_camera_within_its_uncertainty(drive: list[UInt8Array]) -> None:
    begun = watched(drive[:3])
    assert begun.doubt_of_camera == "the drive has just begun"
    assert begun.calibration == ("pitch 0.0 ± 3.0° not sure", "field of view assumed")
    assert not begun.camera.calibrated
    assert math.degrees(begun.camera.pitch_std_rad) > 3
    watch = watched(drive)
    assert watch.camera.calibrated
    assert not watch.doubt_of_camera
    std_deg = math.degrees(watch.camera.pitch_std_rad)
    assert std_deg < 0.8
    assert watch.camera.pitch_deg == pytest.approx(PITCH_DEG, abs=0.4)
    assert watch.camera.yaw_deg == pytest.approx(YAW_DEG, abs=0.4)


@pytest.mark.parametrize(
    ("code", "turn_back_deg"),
    [(cv2.ROTATE_180, 180), (cv2.ROTATE_90_CLOCKWISE, 270), (cv2.ROTATE_90_COUNTERCLOCKWISE, 90)],
)
def test_a_turned_camera_stays_uncalibrated(drive: list[UInt8Array], code: int, turn_back_deg: int) -> None:
    watch = watched([np.ascontiguousarray(cv2.rotate(image_rgb, code)) for image_rgb in drive])
    assert not watch.camera.calibrated
    assert f"turn it by {turn_back_deg}° to the right" in watch.doubt_of_camera


def test_a_picture_without_motion_calibrates_nothing_and_contradicts_a_speed(drive: list[UInt8Array]) -> None:
    watch = watched([drive[0]] * 7)
    assert "the picture does not move" in watch.doubt_of_camera
    assert watch.doubt_of_speed == "the car drives by its own speed, but the picture does not move"
    assert not watched([drive[0]] * 7, EgoMotion()).doubt_of_speed


def test_a_car_that_stands_does_not_see_the_world_move(drive: list[UInt8Array]) -> None:
    assert watched(drive, EgoMotion(0.0)).doubt_of_speed == "the car stands by its own speed, but the picture moves"
    assert not watched(drive).doubt_of_speed


@pytest.mark.parametrize("seed", [None, 3])
def test_nothing_to_see_calibrates_nothing(seed: int | None) -> None:
    rng = np.random.default_rng(seed)
    shape = (*SIZE_PX[::-1], 3)
    grey = [np.full(shape, 90, np.uint8)] * 7
    images = grey if seed is None else [rng.integers(0, 255, shape, np.uint8) for _ in grey]
    watch = watched(images)
    assert "nothing in the picture can be followed" in watch.doubt_of_camera
    assert watch.cuts == 0


def test_a_cut_begins_anew(drive: list[UInt8Array], photograph_rgb: UInt8Array) -> None:
    other = cv2.resize(photograph_rgb, SIZE_PX)
    watch = watched(drive)
    assert watch.cuts == 0
    time_s = len(drive) * STEP_S
    cuts = [watch.look(time_s + number * 0.04, other, MOVING) for number in range(5)]
    assert cuts == [True, False, False, False, False]
    assert not watch.camera.calibrated
    assert watch.camera.pitch_deg == 0


def test_a_guess_has_its_field_of_view_along_the_longer_side(config: Config) -> None:
    upright, wide = (configured_camera(config.camera, size_px) for size_px in ((360, 640), (640, 360)))
    assert upright.fx_px == pytest.approx(wide.fx_px)
    assert wide.fx_px == pytest.approx(Camera.from_fov((640, 360), 60, 1.3).fx_px)


def test_a_run_says_what_it_cannot(
    tmp_path: Path, config: Config, labels: tuple[str, ...], drive: list[UInt8Array], caplog: pytest.LogCaptureFixture
) -> None:
    """A recording at 5 frames a second by a car that says it stands: each notice ends with its cause."""
    clip = tmp_path / "clip.mp4"
    with VideoWriter(clip, SIZE_PX, 1 / STEP_S) as writer:
        for number in range(14):
            writer.write(drive[min(number, 6)], number * STEP_S)
    settings = demo_settings(
        config,
        labels,
        ego=ConstantEgo(EgoMotion(0.0)),
        camera=presumed(Camera.from_fov(SIZE_PX, 60, 1.3)),
        assumed="field of view assumed",
    )
    summary = run_with(settings, clip, Detector())
    frames = summary.notice_frames
    assert frames["REPLAY"] == 14
    assert 5 <= frames["UNCALIBRATED"] <= 8
    assert 2 <= frames["SPEED"] <= 8
    assert 2 <= frames["DEGRADED"] <= 5
    assert summary.lowest_rate_hz == pytest.approx(5, abs=0.6)
    events = events_of(summary)
    assert (events[0]["camera_calibrated"], events[-1]["camera_calibrated"]) == (False, True)
    noted = [set(event["notices"]) for event in events]  # type: ignore[call-overload]
    assert {"REPLAY", "UNCALIBRATED"} <= noted[0]
    assert noted[-1] == {"REPLAY", "DEGRADED"}
    assert "UNCALIBRATED: the drive has just begun" in caplog.text
    text = str(summary)
    for words in ("replay: the car does not react", "° estimated, field of view assumed", "least rate   5.0 decisions"):
        assert words in text
    assert (summary.outputs.video).is_file()


def test_the_rendered_car_reacts(config: Config) -> None:
    """The same drive with and without the brake: the frames depend on the decision."""

    def outcome(brake_from_s: float) -> tuple[str, float]:
        camera = Camera.from_fov((64, 64), 60, 1.3)
        drive = RenderedDrive(
            find_scenario("ccrs-40"), camera, config.simulation, front_overhang_m=1.5, fps=2.5, latency_s=0.8, seed=1
        )
        assert drive.frames_ahead == 2
        for frame in drive:
            drive.react(frame.time_s, brake=frame.time_s >= brake_from_s)
        return drive.outcome, drive.at(frame.time_s).speed_mps or 0.0

    assert outcome(99.0)[0].startswith("contact at")
    text, speed_mps = outcome(2.0)
    assert text.startswith("no contact")
    assert speed_mps == 0


@pytest.mark.slow
def test_real_clips_calibrate_themselves(data: Data) -> None:
    for name, pitch_deg in (("udacity_solidWhiteRight", -2.4), ("udacity_vehicle_test_video", -3.2)):
        with open_source(str(data(f"clips/{name}.mp4")), image_folder_fps=10) as source:
            watch = PictureWatch(presumed(Camera.from_fov(source.size_px, 60, 1.3)))
            for frame in source:
                watch.look(frame.time_s, frame.image_rgb, MOVING)
                if frame.time_s > 1.3:
                    break
        assert watch.camera.calibrated
        # What 'ssd-triton calibrate clip' finds from the whole clip.
        assert watch.camera.pitch_deg == pytest.approx(pitch_deg, abs=0.3)
