"""Detect objects in images, folders of images, or a video, through a Triton server.

Writes detections.json and annotated pictures (or an annotated MP4). Images are sent as they are; the frames of a video
go through shared memory when the server is on this machine.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ssd_triton.client import detect
from ssd_triton.commands import runner
from ssd_triton.common.files import relative_to_cwd
from ssd_triton.common.labels import load_labels
from ssd_triton.config import Config
from ssd_triton.serving.connect import add_connection_arguments, connect


def add_arguments(parser: argparse.ArgumentParser, config: Config) -> None:
    """Options of this command."""
    parser.add_argument("inputs", type=Path, nargs="+", help="images, folders of images, or one video")
    parser.add_argument("--output", type=Path, default=config.detect.output, help="folder for the results")
    parser.add_argument("--score-thresh", type=float, default=config.detect.score_thresh, help="0 to 1")
    parser.add_argument("--labels-path", type=Path, default=config.labels_path, help="one class a line")
    add_connection_arguments(parser, config)


def main() -> int:
    """Detect; exit code 1 when a file was refused or a frame could not be decoded."""
    args, config = runner.parse(
        str(__doc__), "python clients/detect.py street.jpg --serve --output reports/street", add_arguments
    )
    labels = load_labels(args.labels_path)
    video = detect.is_video(args.inputs)
    files = args.inputs if video else detect.list_images(args.inputs)
    with connect(args, config) as client:
        if video:
            summary = detect.detect_video(client, files[0], args.output, labels, args.score_thresh)
        else:
            summary = detect.detect_images(client, files, args.output, labels, args.score_thresh)
    for line in summary.refused:
        print(f"refused: {line}", file=sys.stderr)
    if summary.undecodable_frames:
        print(f"undecodable frames: {summary.undecodable_frames}, skipped", file=sys.stderr)
    for path in summary.written:
        print(relative_to_cwd(path))
    return 1 if summary.refused or summary.undecodable_frames else 0


if __name__ == "__main__":
    runner.run(main)
