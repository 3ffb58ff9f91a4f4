"""Annotate a drive: where road users are, how fast they come nearer, and whether to warn or to brake.

Detections come from a Triton server. Written are a video with the state and its reason, the road from above and the
times of all stages; a plot of range, speed, time to collision and state over time; and every decision with its evidence
as JSON lines. Without --video, the drive is a rendered scenario. The road is taken to be flat: a demonstration, not a
safety system.
"""

from __future__ import annotations

import argparse

from ssd_triton.commands import runner
from ssd_triton.common.labels import load_labels
from ssd_triton.config import Config
from ssd_triton.driving.braking import options
from ssd_triton.driving.camera import configured_camera
from ssd_triton.driving.demo.options import add_demo_arguments, demo_settings, ego_source
from ssd_triton.driving.demo.output import default_input, open_demo_source, open_demo_writer
from ssd_triton.driving.demo.run import DemoSettings, run_demo
from ssd_triton.media.video.window import Window
from ssd_triton.serving.connect import add_connection_arguments, connect

EXAMPLE = "python clients/brake_demo.py --serve --video clip.mp4 --ego-speed-kmh 50"


def add_arguments(parser: argparse.ArgumentParser, config: Config) -> None:
    """Add the arguments of this command."""
    add_demo_arguments(parser, config)
    add_connection_arguments(parser, config)
    options.add_camera_arguments(parser, config)
    options.add_braking_arguments(parser, config)


def main() -> int:
    """Make the video; exit code 130 when Ctrl-C ended it early, 1 when the server or the source did."""
    args, config = runner.parse(str(__doc__), EXAMPLE, add_arguments)
    labels, ego = load_labels(config.labels_path), ego_source(args, config)
    if args.video is None:
        args.video, ego = default_input(config, labels, args.output)
    # All that can be wrong with the arguments shows here, before a server is asked for or started.
    with open_demo_source(args.video, output=args.output, image_folder_fps=args.image_folder_fps) as source:
        settings = DemoSettings(
            labels=labels,
            camera=configured_camera(options.camera_settings(args, config), source.size_px),
            ego=ego,
            braking=options.braking_settings(args, config),
            tracking=config.tracking,
            demo=demo_settings(args, config),
            in_flight=args.in_flight,
            real_time=args.real_time,
        )
        writer = open_demo_writer(source, args.output, settings.demo.x264_preset)
        window = Window("ssd-triton") if args.display else None
        # A recorded drive can wait for a server that comes back; what happens now cannot.
        waits = not (args.real_time or source.is_live)
        with connect(args, config, retry_s=config.demo.server_deadline_s if waits else None) as client:
            summary = run_demo(source, client, writer, settings, window)
            print(summary)
            if summary.failure is not None:
                raise summary.failure
    return 130 if summary.interrupted else 0


if __name__ == "__main__":
    runner.run(main)
