"""Draw a scenario of the simulated world as a dash-cam clip, with its ground truth.

Also writes a CSV file with range, closing speed and time to collision of every target in every frame. Without
--closed-loop the car does not brake.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ssd_triton.commands.options import COUNT, POSITIVE
from ssd_triton.commands.shared import add_fps_option
from ssd_triton.config import Config

EXAMPLE = "ssd-triton render-scenario ccrs-40 --output reports/ccrs-40.mp4 --closed-loop"
_WEATHERS = ("sunny", "overcast", "dusk", "rain")


def add_arguments(parser: argparse.ArgumentParser, config: Config) -> None:
    """Add the options of this verb."""
    parser.add_argument("scenario", nargs="?", default="town", metavar="NAME", help="scenario, one of --list")
    parser.add_argument("--list", action="store_true", help="print the scenarios and what each must fulfil, and end")
    parser.add_argument("--output", type=Path, default=Path("reports/scenario.mp4"), help="clip to write")
    parser.add_argument("--annotations", type=Path, help="file to write with boxes of all frames in COCO's format")
    parser.add_argument("--closed-loop", action="store_true", help="brake as the project's braking decides")
    parser.add_argument("--weather", choices=_WEATHERS, default="sunny", help="light and air")
    parser.add_argument("--seed", type=COUNT, default=0, help="seed of the street and of the noise of detections")
    add_fps_option(parser)
    parser.add_argument(
        "--size",
        type=POSITIVE,
        nargs=2,
        default=(1280, 720),
        metavar=("WIDTH", "HEIGHT"),
        help="size of the picture, pixels",
    )


def run(args: argparse.Namespace, config: Config) -> int:
    """Draw the clip."""
    from ssd_triton.common.labels import load_labels
    from ssd_triton.driving.camera import configured_camera
    from ssd_triton.simulation import find_scenario, scenarios
    from ssd_triton.simulation.catalogue import describe
    from ssd_triton.simulation.clip import render_clip

    if args.list:
        print(describe(scenarios()))
        return 0
    clip = render_clip(
        find_scenario(args.scenario),
        args.output,
        configured_camera(config.camera, tuple(args.size)),
        config,
        load_labels(config.labels_path),
        weather=args.weather,
        seed=args.seed,
        fps=args.fps,
        closed_loop=args.closed_loop,
        annotations=args.annotations,
    )
    print(clip)
    return 0
