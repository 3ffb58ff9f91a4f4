"""Camera files (YAML: intrinsics, lens distortion, mounting), and the camera of a configuration."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator

from ssd_triton.common.files import atomic_output, relative_to_cwd
from ssd_triton.common.yaml_file import read_yaml, validated
from ssd_triton.config import CameraConfig
from ssd_triton.driving.camera.model import Camera, CameraError

_Pixels = Annotated[int, Field(gt=0, le=1 << 16)]
_Finite = Annotated[float, Field(allow_inf_nan=False)]
_DISTORTION_LENGTHS = (0, 4, 5)
_GUESSED_FOV_DEG = 60.0
"""Field of view of an unknown camera: dash-cams and phones mostly have 55 to 75° along the longer side."""


class _CameraFile(BaseModel):
    """The keys of a camera file, as in :class:`ssd_triton.driving.camera.Camera`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    width_px: _Pixels
    height_px: _Pixels
    fx_px: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    fy_px: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    cx_px: _Finite
    cy_px: _Finite
    height_m: Annotated[float, Field(gt=0, le=100)]
    pitch_deg: Annotated[float, Field(gt=-45, lt=45)] = 0.0
    yaw_deg: Annotated[float, Field(gt=-45, lt=45)] = 0.0
    distortion: tuple[_Finite, ...] = ()

    @field_validator("distortion")
    @classmethod
    def _check_length(cls, distortion: tuple[float, ...]) -> tuple[float, ...]:
        if len(distortion) not in _DISTORTION_LENGTHS:
            raise ValueError(f"{len(distortion)} numbers, expected k1, k2, p1, p2 and optionally k3, or none")
        return distortion


_COMMENTS = {
    "width_px": "of the image; the camera is scaled to other sizes of the same aspect",
    "fx_px": "focal length",
    "cx_px": "principal point; the first pixel's centre is at (0.5, 0.5)",
    "height_m": "of the lens above the road",
    "pitch_deg": "positive looks down",
    "yaw_deg": "positive points to the right of the car's heading",
    "distortion": "OpenCV's k1, k2, p1, p2 and optionally k3; empty for none",
}


def load_camera(path: Path) -> Camera:
    """Read a camera file.

    Raises:
        CameraError: The file is missing or not YAML, or a key is unknown, repeated, missing or out of range.
    """
    next_step = "expected a camera file; run: ssd-triton calibrate --help"
    values = read_yaml(path, _CameraFile, error_type=CameraError, next_step=next_step)
    return Camera(**values.model_dump())


def save_camera(camera: Camera, path: Path, notes: Sequence[str] = ()) -> None:
    """Write a camera file.

    Args:
        camera: The camera.
        path: The file; replaced only when complete.
        notes: Comment lines at its top, such as method, reprojection error and date.

    Raises:
        CameraError: :func:`load_camera` would refuse the file.
    """
    values = {name: value for name, value in asdict(camera).items() if name in _CameraFile.model_fields}
    validated(values, _CameraFile, name=relative_to_cwd(path), error_type=CameraError)
    lines = [f"# {note}" for note in notes]
    for key, value in values.items():
        text = f"{key}: {[*value] if isinstance(value, tuple) else format(value, '.10g')}"
        lines.append(f"{text:<32} # {_COMMENTS[key]}" if key in _COMMENTS else text)
    with atomic_output(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _guessed_fov_deg(size_px: tuple[int, int]) -> float:
    """Horizontal field of view of a camera with the guessed one along its longer side."""
    share = size_px[0] / max(size_px)
    return 2 * math.degrees(math.atan(share * math.tan(math.radians(_GUESSED_FOV_DEG) / 2)))


def configured_camera(settings: CameraConfig, size_px: tuple[int, int]) -> Camera:
    """The camera of the configuration, for images of a size.

    Args:
        settings: The section ``camera``: its file if set, otherwise its other keys.
        size_px: Width and height of the images.

    Raises:
        CameraError: The camera file cannot be used, or is for another aspect ratio.
    """
    if settings.file is None:
        fov_deg = settings.horizontal_fov_deg or _guessed_fov_deg(size_px)
        return Camera.from_fov(size_px, fov_deg, settings.height_m, settings.pitch_deg or 0.0, settings.yaw_deg)
    camera = load_camera(settings.file)
    try:
        return camera.scaled_to(*size_px)
    except CameraError as error:
        raise CameraError(f"{relative_to_cwd(settings.file)}: {error}") from None


def assumed(camera: CameraConfig) -> str:
    """Describe what is guessed about a configured camera and cannot be estimated from a drive; empty for nothing."""
    is_guess = camera.file is None and camera.horizontal_fov_deg is None
    return "field of view of 60° assumed" if is_guess else ""
