"""Command-line flags of the demo, with the defaults and the limits of ``config.yml``."""

from __future__ import annotations

import argparse
from pathlib import Path

from ssd_triton.common.units import KMH_PER_MPS
from ssd_triton.config import Config, DemoConfig
from ssd_triton.driving.braking import options
from ssd_triton.driving.braking.ego import ConstantEgo, EgoMotion, EgoSource, load_ego_csv


def add_demo_arguments(parser: argparse.ArgumentParser, config: Config) -> None:
    """Add what the section ``demo`` holds, and how the car moves."""
    demo = config.demo
    parser.add_argument(
        "--video",
        default=None if demo.video is None else str(demo.video),
        help="a video file, a folder of images, or the index of a camera; by default a rendered scenario",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=demo.output,
        metavar="MP4",
        help="the video to write; beside it NAME.events.jsonl and NAME.timeline.png",
    )
    parser.add_argument(
        "--score-thresh",
        type=options.value_of(DemoConfig, "score_thresh"),
        default=demo.score_thresh,
        metavar="SCORE",
        help="of what is drawn and not followed, 0 to 1; what is followed: tracking of config.yml",
    )
    parser.add_argument(
        "--image-folder-fps",
        type=options.value_of(DemoConfig, "image_folder_fps"),
        default=demo.image_folder_fps,
        metavar="FPS",
        help="frames a second of a folder of images",
    )
    parser.add_argument(
        "--real-time",
        action="store_true",
        help="take a file's frames at their pace, as from a camera, and drop what the detector has no time for",
    )
    parser.add_argument("--display", action="store_true", help="show the frames in a window as well; Escape ends")
    motion = parser.add_mutually_exclusive_group()
    motion.add_argument(
        "--ego-speed-csv",
        type=Path,
        metavar="FILE",
        help="the car's speed over time: columns time_s,speed_kmh and optionally yaw_rate_deg_s",
    )
    motion.add_argument(
        "--no-ego-speed", action="store_true", help="decide without the car's speed, by the growth of images alone"
    )


def demo_settings(args: argparse.Namespace, config: Config) -> DemoConfig:
    """The section ``demo`` with the flags in place."""
    flags = {name: getattr(args, name) for name in ("video", "output", "score_thresh", "image_folder_fps")}
    return DemoConfig.model_validate(config.demo.model_dump() | flags)


def ego_source(args: argparse.Namespace, config: Config) -> EgoSource:
    """How the car moves, as the flags say.

    Raises:
        EgoMotionError: The file of speeds cannot be used.
    """
    if args.ego_speed_csv is not None:
        return load_ego_csv(args.ego_speed_csv, config.demo.max_ego_gap_s)
    if args.no_ego_speed:
        return ConstantEgo()
    return ConstantEgo(EgoMotion(args.ego_speed_kmh / KMH_PER_MPS))
