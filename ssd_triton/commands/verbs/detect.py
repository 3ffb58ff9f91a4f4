"""Detect objects in images, folders of images, or a video, through a Triton server.

Writes detections.json and annotated pictures (or an annotated MP4). Images are recognised by their content and sent as
they are, EXIF not applied; the frames of a video go through shared memory when the server is on this machine.
"""

from __future__ import annotations

import argparse
import sys

from ssd_triton.commands.options import add_option
from ssd_triton.commands.shared import add_connection_options
from ssd_triton.common.files import relative_to_cwd
from ssd_triton.config import Config

EXAMPLE = "ssd-triton detect street.jpg --serve --output reports/street"


def add_arguments(parser: argparse.ArgumentParser, config: Config) -> None:
    """Options of this verb."""
    parser.add_argument(
        "inputs", nargs="+", metavar="INPUT", help="images, folders of images, or one video: a file, http(s) or rtsp"
    )
    add_option(parser, config, "--output", "detect.output")
    add_option(parser, config, "--score-thresh", "detect.score_thresh")
    add_option(parser, config, "--labels-path", "labels_path")
    add_connection_options(parser, config)


def run(args: argparse.Namespace, config: Config) -> int:
    """Detect; exit code 1 when a file was refused or a frame could not be decoded."""
    from ssd_triton.client import detect
    from ssd_triton.common.labels import load_labels
    from ssd_triton.serving.connect import connect

    labels, settings = load_labels(config.labels_path), config.detect
    video = detect.is_video(args.inputs)
    files = [] if video else detect.list_images(args.inputs)
    with connect(config, serve=args.serve, retry_s=config.client.retry_s) as client:
        if video:
            summary = detect.detect_video(client, args.inputs[0], settings.output, labels, settings.score_thresh)
        else:
            summary = detect.detect_images(client, files, settings.output, labels, settings.score_thresh)
    for line in summary.refused:
        print(f"refused: {line}", file=sys.stderr)
    if summary.undecodable_frames:
        print(f"undecodable frames: {summary.undecodable_frames}, skipped", file=sys.stderr)
    for path in summary.written:
        print(relative_to_cwd(path))
    return 1 if summary.refused or summary.undecodable_frames else 0
