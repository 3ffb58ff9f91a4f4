"""Find out how a camera is mounted, and write a camera file and a picture of the road's metres as it sees them.

Three methods: 'points' solves height, pitch and yaw from four or more road points measured with a tape; 'horizon' takes
the height and the horizon's row; 'clip' takes the height and finds where the lane lines of a straight road meet.
The focal length comes from a camera file (OpenCV's calibration, say) or from the field of view.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from ssd_triton.commands import runner
from ssd_triton.common.files import relative_to_cwd
from ssd_triton.config import CameraConfig, Config
from ssd_triton.driving.braking.options import value_of
from ssd_triton.driving.camera import Camera, configured_camera
from ssd_triton.driving.camera.calibrate import (
    Calibration,
    calibrate_from_clip,
    calibrate_from_horizon,
    calibrate_from_points,
    check_output,
    frame_at,
    write_calibration,
)
from ssd_triton.driving.camera.mounting import RoadReference
from ssd_triton.media.video import VideoSource, open_source

EXAMPLE = """python tools/calibrate_camera.py points --video frame.png --horizontal-fov-deg 60 \\
      --point 6 -1.75 317 600 --point 6 1.75 963 600 --point 15 -1.75 511 456 --point 15 1.75 769 456
  python tools/calibrate_camera.py horizon --video drive.mp4 --horizon-y-px 312 --height-m 1.3
  python tools/calibrate_camera.py clip --video drive.mp4 --height-m 1.3 --output cameras/mine.yml
  python tools/calibrate_camera.py points --help"""


def add_arguments(parser: argparse.ArgumentParser, config: Config) -> None:
    """Add a sub-command for each method."""
    methods = parser.add_subparsers(dest="method", required=True, metavar="METHOD")
    points = _add_method(methods, parser, "points", "road points of known metres: height, pitch and yaw")
    points.add_argument(
        "--point",
        dest="points",
        type=number,
        nargs=4,
        action="append",
        default=[],
        metavar=("FORWARD_M", "LATERAL_M", "X_PX", "Y_PX"),
        help="metres ahead of the camera and to the right (negative: left), and the pixel; four or more times",
    )
    horizon = _add_method(methods, parser, "horizon", "the horizon's row: pitch, and yaw if its column is given")
    horizon.add_argument("--horizon-y-px", type=number, required=True, metavar="PX", help="row of the horizon")
    horizon.add_argument(
        "--vanishing-x-px",
        type=number,
        metavar="PX",
        help="column in which the lane's lines meet; None takes the camera to look straight ahead",
    )
    clip = _add_method(methods, parser, "clip", "lane lines of a straight road: pitch and yaw")
    clip.add_argument("--max-frames", type=frame_count, default=60, metavar="N", help="frames to look at, 3 or more")
    for method in (points, horizon):
        method.add_argument("--at-s", type=number, default=0.0, metavar="S", help="time of the frame, seconds")
    for method in (horizon, clip):
        method.add_argument(
            "--height-m",
            type=value_of(CameraConfig, "height_m"),
            metavar="M",
            help="of the lens above the road, metres; None takes the camera file's, or camera.height_m of config.yml",
        )


def main() -> int:
    """Calibrate, write, and print what was found."""
    args, config = runner.parse(str(__doc__), EXAMPLE, add_arguments)
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
    methods: argparse._SubParsersAction[argparse.ArgumentParser],
    parser: argparse.ArgumentParser,
    name: str,
    text: str,
) -> argparse.ArgumentParser:
    """Add a sub-command with what all of them take."""
    method = methods.add_parser(name, help=text, description=text, formatter_class=parser.formatter_class)
    method.add_argument(
        "--video", required=True, help="an image, a video file, a folder of images, or the index of a camera"
    )
    lens = method.add_mutually_exclusive_group()
    lens.add_argument(
        "--camera", type=Path, metavar="FILE", help="a camera file with the focal length and the lens distortion"
    )
    lens.add_argument(
        "--horizontal-fov-deg",
        type=value_of(CameraConfig, "horizontal_fov_deg"),
        metavar="DEG",
        help="angle between the left and the right edge of the image; None takes the section camera of config.yml",
    )
    method.add_argument(
        "--output", type=Path, default=Path("reports/camera.yml"), metavar="FILE", help="the camera file to write"
    )
    return method


def _intrinsics(args: argparse.Namespace, config: Config, size_px: tuple[int, int]) -> Camera:
    """The camera before its mounting is found; of that only the height may count."""
    given: dict[str, object] = {}
    if args.camera is not None:
        given["file"] = args.camera
    if args.horizontal_fov_deg is not None:
        given.update(file=None, horizontal_fov_deg=args.horizontal_fov_deg)
    camera = configured_camera(config.camera.model_copy(update=given), size_px)
    height_m = getattr(args, "height_m", None)
    return camera if height_m is None else camera.with_height(height_m)


def _calibrate(args: argparse.Namespace, intrinsics: Camera, source: VideoSource) -> Calibration:
    if args.method == "clip":
        return calibrate_from_clip(intrinsics, source, args.max_frames)
    image_rgb = frame_at(source, args.at_s)
    if args.method == "horizon":
        return calibrate_from_horizon(intrinsics, args.horizon_y_px, args.vanishing_x_px, image_rgb)
    return calibrate_from_points(intrinsics, [RoadReference(*point) for point in args.points], image_rgb)


def number(text: str) -> float:
    """A finite number; argparse names this function when it refuses."""
    value = float(text)
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"got {text}, expected a finite number")
    return value


def frame_count(text: str) -> int:
    """A number of frames that is enough; argparse names this function when it refuses."""
    value = int(text)
    if value < 3:
        raise argparse.ArgumentTypeError(f"got {value}, expected 3 or more")
    return value


if __name__ == "__main__":
    runner.run(main)
