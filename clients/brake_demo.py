"""Annotate a drive: detections through a Triton server, where they are on the road, and whether to warn or to brake.

Writes a video in which the state, the times of all stages and the road from above are drawn beside the detections.
The road is taken to be flat and every object to stand still: a demonstration, not a safety system.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ssd_triton import cli
from ssd_triton.braking import options
from ssd_triton.braking.demo import DemoSettings, open_demo_source, open_demo_writer, run_demo
from ssd_triton.client.connect import add_connection_arguments, connect
from ssd_triton.config import Config, DemoConfig
from ssd_triton.labels import load_labels
from ssd_triton.video.window import Window

EXAMPLE = "python clients/brake_demo.py --serve --video clip.mp4 --ego-speed-kmh 50"


def add_arguments(parser: argparse.ArgumentParser, config: Config) -> None:
    """Add the arguments of this command."""
    demo = config.demo
    parser.add_argument(
        "--video",
        default=None if demo.video is None else str(demo.video),
        help="a video file, a folder of images, or the index of a camera",
    )
    parser.add_argument("--output", type=Path, default=demo.output, metavar="MP4", help="the video to write")
    parser.add_argument(
        "--score-thresh",
        type=options.value_of(DemoConfig, "score_thresh"),
        default=demo.score_thresh,
        metavar="SCORE",
        help="detections with this score or less are left out, 0 to 1",
    )
    parser.add_argument(
        "--image-folder-fps",
        type=options.value_of(DemoConfig, "image_folder_fps"),
        default=demo.image_folder_fps,
        metavar="FPS",
        help="frames a second of a folder of images",
    )
    parser.add_argument("--display", action="store_true", help="show the frames in a window as well; Escape ends")
    add_connection_arguments(parser, config)
    options.add_camera_arguments(parser, config)
    options.add_braking_arguments(parser, config)


def main() -> int:
    """Make the video; exit code 130 when Ctrl-C ended it early."""
    args, config = cli.parse(str(__doc__), EXAMPLE, add_arguments)
    settings = DemoSettings(
        labels=load_labels(config.labels_path),
        camera=options.camera_settings(args),
        braking=options.braking_settings(args),
        score_thresh=args.score_thresh,
        in_flight=args.in_flight,
    )
    # All that can be wrong with the arguments shows here, before a server is asked for or started.
    with open_demo_source(args.video, output=args.output, image_folder_fps=args.image_folder_fps) as source:
        writer = open_demo_writer(source, args.output)
        window = Window("ssd-triton") if args.display else None
        with connect(args, config) as client:
            summary = run_demo(source, client, writer, settings, window)
    print(summary)
    return 130 if summary.interrupted else 0


if __name__ == "__main__":
    cli.run(main)
