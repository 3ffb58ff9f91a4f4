"""Find out how a camera is mounted, and write a camera file and a picture with a grid of metres on the road.

Three methods: 'points' solves height, pitch and yaw from four or more measured points on the road; 'horizon' takes the
height and the row of the horizon; 'clip' takes the height, and finds where the lane lines of a straight road meet. The
focal length comes from a camera file (for example from OpenCV's calibration) or from the field of view.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from ssd_triton.commands.options import NUMBER, Typed, add_option, given
from ssd_triton.common.files import relative_to_cwd
from ssd_triton.config import Config

if TYPE_CHECKING:
    from ssd_triton.driving.camera import Camera
    from ssd_triton.driving.camera.calibrate import Calibration
    from ssd_triton.media.video import VideoSource

EXAMPLE = """ssd-triton calibrate points --video frame.png --horizontal-fov-deg 60 \\
      --point 6 -1.75 317 600 --point 6 1.75 963 600 --point 15 -1.75 511 456 --point 15 1.75 769 456
  ssd-triton calibrate horizon --video drive.mp4 --horizon-y-px 312 --height-m 1.3
  ssd-triton calibrate clip --video drive.mp4 --height-m 1.3 --output cameras/mine.yml
  ssd-triton calibrate points --help"""


def add_arguments(parser: argparse.ArgumentParser, config: Config) -> None:
    """Add a sub-command for each method."""
    methods = parser.add_subparsers(dest="method", required=True, metavar="METHOD")
    points = _add_method(methods, config, "points", "road points of known metres: height, pitch and yaw")
    points.add_argument(
        "--point",
        dest="points",
        type=NUMBER,
        nargs=4,
        action="append",
        default=[],
        metavar=("FORWARD_M", "LATERAL_M", "X_PX", "Y_PX"),
        help="metres in front of the camera and to the right (negative: left), and the pixel; four or more times",
    )
    horizon = _add_method(methods, config, "horizon", "the horizon's row: pitch, and yaw if its column is given")
    horizon.add_argument("--horizon-y-px", type=NUMBER, required=True, help="row of the horizon")
    horizon.add_argument(
        "--vanishing-x-px",
        type=NUMBER,
        help="column in which the lane's lines meet; by default the camera looks straight ahead",
    )
    clip = _add_method(methods, config, "clip", "lane lines of a straight road: pitch and yaw")
    clip.add_argument(
        "--max-frames",
        type=Typed(Annotated[int, Field(ge=3)]),
        default=60,
        help="number of frames to look at, 3 or more",
    )
    for method in (points, horizon):
        method.add_argument("--at-s", type=NUMBER, default=0.0, help="time of the frame")
    for method in (horizon, clip):
        add_option(
            method,
            config,
            "--height-m",
            "camera.height_m",
            description="height of the lens above the road, instead of the camera file's",
        )


def run(args: argparse.Namespace, config: Config) -> int:
    """Calibrate, write the files, and print the result."""
    from ssd_triton.driving.camera.calibrate import check_output, write_calibration
    from ssd_triton.media.video import open_source

    check_output(args.output)
    with open_source(args.video, image_folder_fps=config.demo.image_folder_fps) as source:
        calibration = _calibrate(args, _intrinsics(args, config, source.size_px), source)
    picture_path = write_calibration(calibration, args.output, config.braking.corridor_half_width_m)
    camera = calibration.camera
    print(*calibration.notes, sep="\n")
    print(f"height {camera.height_m:.3f} m, pitch {camera.pitch_deg:.2f} deg, yaw {camera.yaw_deg:.2f} deg")
    print(relative_to_cwd(args.output), relative_to_cwd(picture_path), sep="\n")
    return 0


def _add_method(
    methods: argparse._SubParsersAction[argparse.ArgumentParser], config: Config, name: str, text: str
) -> argparse.ArgumentParser:
    """Add a sub-command with the options that all sub-commands share."""
    method = methods.add_parser(name, help=text, description=text)
    method.add_argument(
        "--video", required=True, metavar="VIDEO", help="image, video file, folder of images, or index of a camera"
    )
    lens = method.add_mutually_exclusive_group()
    add_option(
        lens,
        config,
        "--camera",
        "camera.file",
        description="camera file with the focal length and the lens distortion",
        metavar="FILE",
    )
    add_option(lens, config, "--horizontal-fov-deg", "camera.horizontal_fov_deg")
    method.add_argument("--output", type=Path, default=Path("reports/camera.yml"), help="camera file to write")
    return method


def _intrinsics(args: argparse.Namespace, config: Config, size_px: tuple[int, int]) -> Camera:
    """Return the camera before calibration; of its mounting, at most the height is used."""
    from ssd_triton.driving.camera import configured_camera

    settings = config.camera
    if given(args, ["camera.horizontal_fov_deg"]):
        settings = settings.model_copy(update={"file": None})
    camera = configured_camera(settings, size_px)
    return camera.with_height(settings.height_m) if given(args, ["camera.height_m"]) else camera


def _calibrate(args: argparse.Namespace, intrinsics: Camera, source: VideoSource) -> Calibration:
    from ssd_triton.driving.camera.calibrate import (
        calibrate_from_clip,
        calibrate_from_horizon,
        calibrate_from_points,
        frame_at,
    )
    from ssd_triton.driving.camera.mounting import RoadReference

    if args.method == "clip":
        return calibrate_from_clip(intrinsics, source, args.max_frames)
    image_rgb = frame_at(source, args.at_s)
    if args.method == "horizon":
        return calibrate_from_horizon(intrinsics, args.horizon_y_px, args.vanishing_x_px, image_rgb)
    return calibrate_from_points(intrinsics, [RoadReference(*point) for point in args.points], image_rgb)
