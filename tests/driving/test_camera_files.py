"""Camera files: what they hold, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ssd_triton.common.files import ROOT
from ssd_triton.config import Config
from ssd_triton.driving.camera import Camera, CameraError, configured_camera, load_camera, save_camera
from tests.driving.cameras import LENSES


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
    with pytest.raises(CameraError, match=r"cannot read .*none\.yml.*ssd-triton calibrate"):
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
