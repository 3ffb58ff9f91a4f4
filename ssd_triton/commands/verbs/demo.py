"""Annotate a drive: where road users are, how fast they approach, and whether to warn or to brake.

Detections come from a Triton server. Writes a video with the state and its reason, the road from above and the times of
all stages; a plot of range, speed, time to collision and state over time; and every decision with its evidence as JSON
lines. Without --video, the drive is a rendered scenario whose car reacts to the decisions. Without --camera and
--pitch-deg, the camera is calibrated from the drive itself. The road is assumed to be flat: this is a demonstration,
not a safety system.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ssd_triton.commands.options import add_option, given
from ssd_triton.commands.shared import add_connection_options
from ssd_triton.common.errors import UserError
from ssd_triton.common.files import relative_to_cwd
from ssd_triton.common.units import KMH_PER_MPS
from ssd_triton.config import CameraConfig, Config

if TYPE_CHECKING:
    from ssd_triton.driving.braking.ego import EgoSource
    from ssd_triton.driving.camera import Camera
    from ssd_triton.media.video import VideoSource
    from ssd_triton.simulation.rendered_drive import RenderedDrive

EXAMPLE = "ssd-triton demo --serve --video clip.mp4 --ego-speed-kmh 50"
_CAMERA = ("horizontal_fov_deg", "height_m", "pitch_deg", "yaw_deg")
_BRAKING = ("ego_speed_kmh", "reaction_time_s", "deceleration_mps2", "warning_lead_time_s", "corridor_half_width_m")


def add_arguments(parser: argparse.ArgumentParser, config: Config) -> None:
    """Add the options of this verb."""
    add_option(parser, config, "--video", "demo.video", metavar="VIDEO")
    add_option(parser, config, "--output", "demo.output")
    add_option(parser, config, "--score-thresh", "demo.score_thresh")
    add_option(parser, config, "--image-folder-fps", "demo.image_folder_fps")
    parser.add_argument(
        "--real-time",
        action="store_true",
        help="take the frames of a file at their pace, and drop those that the detector has no time for",
    )
    parser.add_argument(
        "--display", action="store_true", help="show the frames in a window as well; Escape ends the run"
    )
    add_connection_options(parser, config)
    camera = parser.add_argument_group("camera", "above a flat road, without roll: a file, or a pinhole by numbers")
    add_option(camera, config, "--camera", "camera.file")
    for name in _CAMERA:
        add_option(camera, config, f"--{name.replace('_', '-')}", f"camera.{name}")
    braking = parser.add_argument_group("braking", "when to warn and to brake; a demonstration, not a safety system")
    for name in _BRAKING:
        add_option(braking, config, f"--{name.replace('_', '-')}", f"braking.{name}")
    add_option(braking, config, "--classes", "braking.classes", metavar="CLASS")
    motion = parser.add_mutually_exclusive_group()
    motion.add_argument(
        "--ego-speed-csv",
        type=Path,
        help="speed of the own car over time: columns time_s (since the clip's first frame), speed_kmh and optionally "
        "yaw_rate_deg_s",
    )
    motion.add_argument(
        "--no-ego-speed", action="store_true", help="decide without the own speed, by the growth of images alone"
    )


def run(args: argparse.Namespace, config: Config) -> int:
    """Make the video; return 130 when Ctrl-C ended it early, 1 when the server or the source did."""
    from ssd_triton.common.labels import load_labels
    from ssd_triton.driving.braking.ego import RecordedEgo
    from ssd_triton.driving.camera.file import assumed
    from ssd_triton.driving.demo.output import open_demo_writer
    from ssd_triton.driving.demo.run import DemoSettings, run_demo
    from ssd_triton.media.video.window import Window
    from ssd_triton.serving.connect import connect

    mounting, labels, ego = camera_settings(args, config), load_labels(config.labels_path), ego_source(args, config)
    # Errors in the arguments show here, before a server is contacted or started.
    with _open_drive(mounting, config, real_time=args.real_time) as (source, camera, car):
        if car is not None and not args.no_ego_speed:
            ego = car
        if isinstance(ego, RecordedEgo) and source.frame_count:
            ego.check_overlap(source.frame_count / source.fps)
        settings = DemoSettings(
            labels=labels,
            camera=camera,
            ego=ego,
            braking=config.braking,
            tracking=config.tracking,
            demo=config.demo,
            in_flight=config.client.in_flight,
            real_time=args.real_time,
            closed_loop=car,
            assumed="" if car is not None else assumed(mounting),
        )
        writer = open_demo_writer(source, config.demo.output, config.demo.x264_preset)
        window = Window("ssd-triton") if args.display else None
        if settings.assumed:
            logging.warning(
                "%s, and ranges are as wrong as it is; give --horizontal-fov-deg, or a --camera file of 'ssd-triton "
                "calibrate'",
                settings.assumed,
            )
        # A recorded drive can wait for a server that comes back, a live one cannot.
        waits = not (args.real_time or source.is_live)
        retry_s = config.demo.server_deadline_s if waits else None
        with connect(config, serve=args.serve, retry_s=retry_s) as client:
            summary = run_demo(source, client, writer, settings, window)
            print(summary)
            if isinstance(ego, RecordedEgo) and summary.speedless_frames:
                logging.warning(
                    "%d of %d frames had no speed: the record does not cover them, and only the growth of images was "
                    "used there",
                    summary.speedless_frames,
                    summary.frames,
                )
            if summary.failure is not None:
                raise summary.failure
    return 130 if summary.interrupted else 0


def camera_settings(args: argparse.Namespace, config: Config) -> CameraConfig:
    """Return the camera settings in force.

    Raises:
        UserError: There is a camera file, and flags contradict it.
    """
    flags = [
        f"--{key.removeprefix('camera.').replace('_', '-')}" for key in given(args, map("camera.{}".format, _CAMERA))
    ]
    if config.camera.file is not None and flags:
        raise UserError(
            f"got {', '.join(flags)} beside the camera file {relative_to_cwd(config.camera.file)}, expected one or the "
            "other; edit the file, or make another one with 'ssd-triton calibrate'"
        )
    return config.camera


def ego_source(args: argparse.Namespace, config: Config) -> EgoSource:
    """Return the source of the own car's motion.

    Raises:
        EgoMotionError: The file of speeds cannot be used.
        UserError: Speeds are given without a drive that they belong to.
    """
    from ssd_triton.driving.braking.ego import ConstantEgo, EgoMotion, load_ego_csv

    flags = ["--ego-speed-csv"] if args.ego_speed_csv is not None else []
    flags += ["--ego-speed-kmh"] if given(args, ["braking.ego_speed_kmh"]) else []
    if config.demo.video is None and flags:
        raise UserError(f"got {flags[0]} without --video, and the rendered drive has speeds of its own; give a --video")
    if args.ego_speed_csv is not None:
        return load_ego_csv(args.ego_speed_csv, config.demo.max_ego_gap_s)
    if args.no_ego_speed:
        return ConstantEgo()
    return ConstantEgo(EgoMotion(config.braking.ego_speed_kmh / KMH_PER_MPS))


@contextmanager
def _open_drive(
    mounting: CameraConfig, config: Config, *, real_time: bool
) -> Iterator[tuple[VideoSource, Camera, RenderedDrive | None]]:
    """Give the source of the frames, its camera, and the simulated car if the drive is rendered."""
    from ssd_triton.driving.camera import configured_camera
    from ssd_triton.driving.camera.self_calibration import presumed
    from ssd_triton.driving.demo.output import open_demo_source
    from ssd_triton.simulation.rendered_drive import open_default_drive

    if config.demo.video is None:
        logging.info("no clip given: a drive is rendered, and its car reacts to the decisions")
        car = open_default_drive(config, real_time=real_time)
        yield car, car.camera, car
        return
    fps = config.demo.image_folder_fps
    with open_demo_source(str(config.demo.video), output=config.demo.output, image_folder_fps=fps) as source:
        camera = configured_camera(mounting, source.size_px)
        if mounting.file is None and mounting.pitch_deg is None:
            camera = presumed(camera)
        yield source, camera, None
