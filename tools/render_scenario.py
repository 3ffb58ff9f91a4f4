"""Draw a scenario of the simulated world as a dash-cam clip, with its ground truth.

Beside the clip lies a CSV file with range, closing speed and time to collision of every target in every frame. Without
--closed-loop the car does not brake.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ssd_triton.commands import runner
from ssd_triton.common.labels import load_labels
from ssd_triton.config import Config
from ssd_triton.driving.camera import configured_camera
from ssd_triton.simulation import find_scenario, scenarios
from ssd_triton.simulation.catalogue import DEFAULT_NAME, describe
from ssd_triton.simulation.clip import DEFAULT_FPS, DEFAULT_SIZE_PX, render_clip
from ssd_triton.simulation.rendering.weather import WEATHERS

EXAMPLE = "python tools/render_scenario.py ccrs-40 --output reports/ccrs-40.mp4 --closed-loop"


def add_arguments(parser: argparse.ArgumentParser, config: Config) -> None:
    """Options of this command."""
    parser.add_argument("scenario", nargs="?", default=DEFAULT_NAME, metavar="NAME", help="one of --list")
    parser.add_argument("--list", action="store_true", help="print the scenarios and what each must fulfil, and end")
    parser.add_argument("--output", type=Path, default=Path("reports/scenario.mp4"), metavar="MP4", help="the clip")
    parser.add_argument("--annotations", type=Path, metavar="JSON", help="write boxes of all frames in COCO's format")
    parser.add_argument("--closed-loop", action="store_true", help="brake as the project's braking decides")
    parser.add_argument("--weather", choices=list(WEATHERS), default="sunny", help="light and air")
    parser.add_argument("--seed", type=int, default=0, help="another number is another street, and other noise")
    parser.add_argument("--fps", type=float, default=DEFAULT_FPS, help="frames a second")
    parser.add_argument(
        "--size", type=int, nargs=2, default=DEFAULT_SIZE_PX, metavar=("WIDTH", "HEIGHT"), help="of the picture, pixels"
    )


def main() -> int:
    """Draw the clip."""
    args, config = runner.parse(str(__doc__), EXAMPLE, add_arguments)
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


if __name__ == "__main__":
    runner.run(main)
