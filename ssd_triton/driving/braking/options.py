"""Command-line flags for the camera and for braking, with the defaults and the limits of ``config.yml``."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, TypeAdapter, ValidationError

from ssd_triton.common.errors import UserError
from ssd_triton.common.files import relative_to_cwd
from ssd_triton.config import BrakingConfig, CameraConfig, Config

_CAMERA_HELP: Mapping[str, tuple[str, str]] = {
    "horizontal_fov_deg": ("DEG", "angle between the left and the right edge of the image, degrees"),
    "height_m": ("M", "height of the camera above the road, metres"),
    "pitch_deg": ("DEG", "how far the camera looks down, degrees; negative looks up"),
    "yaw_deg": ("DEG", "how far the camera looks to the right of the car's heading, degrees"),
}
_BRAKING_HELP: Mapping[str, tuple[str, str]] = {
    "ego_speed_kmh": ("KMH", "speed of the car, km/h"),
    "reaction_time_s": ("S", "from BRAKE until the brakes bite, seconds"),
    "deceleration_mps2": ("MPS2", "BRAKE when this much is required, m/s^2"),
    "warning_lead_time_s": ("S", "WARN this long before BRAKE, seconds"),
    "corridor_half_width_m": ("M", "half a car and a margin: what reaches into it is in the way, metres"),
}


def add_camera_arguments(parser: argparse.ArgumentParser, config: Config) -> None:
    """Add a flag for each key of the section ``camera``; that of ``file`` is ``--camera``."""
    group = parser.add_argument_group("camera", "above a flat road, without roll: a file, or a pinhole by numbers")
    group.add_argument(
        "--camera",
        type=Path,
        default=config.camera.file,
        metavar="FILE",
        help="a camera file (tools/calibrate_camera.py); without one, the numbers below count",
    )
    for name, (unit, text) in _CAMERA_HELP.items():
        _add(group, config.camera, name, unit, text)


def add_braking_arguments(parser: argparse.ArgumentParser, config: Config) -> None:
    """Add a flag for each key of the section ``braking``."""
    group = parser.add_argument_group("braking", "when to warn and to brake; a demonstration, not a safety system")
    for name, (unit, text) in _BRAKING_HELP.items():
        _add(group, config.braking, name, unit, text)
    group.add_argument(
        "--classes", nargs="+", default=config.braking.classes, metavar="CLASS", help="what to warn of and brake for"
    )


def camera_settings(args: argparse.Namespace, config: Config) -> CameraConfig:
    """The section ``camera`` with the flags in place.

    Raises:
        UserError: There is a camera file, and flags contradict it.
    """
    numbers = {name: getattr(args, name) for name in _CAMERA_HELP}
    given = [f"--{name.replace('_', '-')}" for name, value in numbers.items() if value != getattr(config.camera, name)]
    if args.camera is not None and given:
        raise UserError(
            f"got {', '.join(given)} beside the camera file {relative_to_cwd(args.camera)}, expected one or the other; "
            "edit the file, or make another one with tools/calibrate_camera.py"
        )
    return CameraConfig(file=args.camera, **numbers)


def braking_settings(args: argparse.Namespace, config: Config) -> BrakingConfig:
    """The section ``braking`` with the flags in place."""
    flags = {name: getattr(args, name) for name in (*_BRAKING_HELP, "classes")}
    return BrakingConfig.model_validate(config.braking.model_dump() | flags)


def value_of(section: type[BaseModel], name: str) -> Callable[[str], Any]:
    """An argparse ``type`` that takes what the key of a section of ``config.yml`` takes."""
    field = section.model_fields[name]
    adapter: TypeAdapter[Any] = TypeAdapter(Annotated[field.annotation, field])

    def convert(text: str) -> Any:
        try:
            return adapter.validate_python(text)
        except ValidationError as error:
            raise argparse.ArgumentTypeError(f"{error.errors()[0]['msg']}, got {text!r}") from None

    return convert


def _add(group: argparse._ArgumentGroup, section: BaseModel, name: str, unit: str, text: str) -> None:
    group.add_argument(
        f"--{name.replace('_', '-')}",
        type=value_of(type(section), name),
        default=getattr(section, name),
        metavar=unit,
        help=text,
    )
