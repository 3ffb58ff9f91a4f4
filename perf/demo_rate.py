"""Measure what the braking demo adds to the detector's own time a frame, on a server started for it.

The detector alone and the whole demo take the same clip in turns; the table gives each round and the median. Exit code
1 when the demo adds more than 15 %.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from tempfile import TemporaryDirectory

from ssd_triton.client import DetectorClient
from ssd_triton.commands import runner
from ssd_triton.common.labels import load_labels
from ssd_triton.config import Config
from ssd_triton.driving.braking.ego import ConstantEgo, EgoMotion
from ssd_triton.driving.camera import configured_camera
from ssd_triton.driving.demo.output import open_demo_writer
from ssd_triton.driving.demo.run import DemoSettings, run_demo
from ssd_triton.driving.demo.summary import DemoSummary
from ssd_triton.measuring.demo_rate import TARGET, measure_demo_rate
from ssd_triton.media.video import VideoSource, open_source
from ssd_triton.serving.repository.ensure import ensure_built_if_possible
from ssd_triton.serving.server import EmbeddedServer


def add_arguments(parser: argparse.ArgumentParser, config: Config) -> None:
    """Options of this command."""
    parser.add_argument("video", help="a video file or a folder of images")
    parser.add_argument("--variant", default=config.variant, help="of the detector")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each")


def main() -> int:
    """Measure and print the table."""
    args, config = runner.parse(str(__doc__), "python perf/demo_rate.py clip.mp4", add_arguments)
    ensure_built_if_possible(config, args.variant, logging.info)
    with (
        TemporaryDirectory(prefix="demo-rate-") as folder,
        EmbeddedServer(config.model_repository, args.variant, config.server.for_one_run()) as server,
        DetectorClient(server.url("grpc"), in_flight=config.client.in_flight) as client,
    ):

        def run(source: VideoSource) -> DemoSummary:
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
            client, lambda: open_source(args.video, image_folder_fps=config.demo.image_folder_fps), run, args.rounds
        )
    print(f"{args.variant}, {args.video}\n\n{rates.table().markdown()}")
    return 0 if rates.added <= TARGET else 1


if __name__ == "__main__":
    runner.run(main)
