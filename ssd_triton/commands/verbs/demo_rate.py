"""Measure how much time a frame the braking demo adds to the detector, on a server started for this.

The detector alone and the whole demo process the same clip in turns; the table gives each round and the median. Exit
code 1 when the demo adds more than 15 %.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from ssd_triton.commands.options import POSITIVE, add_option
from ssd_triton.config import Config

if TYPE_CHECKING:
    from ssd_triton.driving.demo.summary import DemoSummary
    from ssd_triton.media.video import VideoSource

EXAMPLE = "ssd-triton demo-rate clip.mp4"


def add_arguments(parser: argparse.ArgumentParser, config: Config) -> None:
    """Add the options of this verb."""
    parser.add_argument("video", metavar="VIDEO", help="video file or folder of images")
    add_option(parser, config, "--variant", "variant")
    parser.add_argument("--rounds", type=POSITIVE, default=5, help="turns of each")


def run(args: argparse.Namespace, config: Config) -> int:
    """Measure and print the table."""
    from ssd_triton.client import DetectorClient
    from ssd_triton.common.labels import load_labels
    from ssd_triton.driving.braking.ego import ConstantEgo, EgoMotion
    from ssd_triton.driving.camera import configured_camera
    from ssd_triton.driving.demo.output import open_demo_writer
    from ssd_triton.driving.demo.run import DemoSettings, run_demo
    from ssd_triton.measuring.demo_rate import TARGET, measure_demo_rate
    from ssd_triton.media.video import open_source
    from ssd_triton.serving.connect import serve_for_one_run

    with (
        TemporaryDirectory(prefix="demo-rate-") as folder,
        serve_for_one_run(config, config.variant) as server,
        DetectorClient(server.url("grpc"), in_flight=config.client.in_flight) as client,
    ):

        def annotate(source: VideoSource) -> DemoSummary:
            settings = DemoSettings(
                labels=load_labels(config.labels_path),
                camera=configured_camera(config.camera, source.size_px),
                ego=ConstantEgo(EgoMotion()),
                braking=config.braking,
                tracking=config.tracking,
                demo=config.demo,
                in_flight=client.in_flight,
            )
            writer = open_demo_writer(source, Path(folder) / "demo.mp4", config.demo.x264_preset)
            return run_demo(source, client, writer, settings)

        rates = measure_demo_rate(
            client,
            lambda: open_source(args.video, image_folder_fps=config.demo.image_folder_fps),
            annotate,
            args.rounds,
        )
    print(f"{config.variant}, {args.video}\n\n{rates.table().markdown()}")
    return 0 if rates.added <= TARGET else 1
