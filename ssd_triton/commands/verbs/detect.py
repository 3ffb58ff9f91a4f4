"""Detect objects in images and videos, through a Triton server.

Inputs are images, folders of images, quoted patterns ('photos/**/*.jpg'), - for an image on standard input, videos,
addresses (images and videos by http and https, streams by rtsp), and camera indices. Ctrl-C ends a camera or a stream.
Images and videos are recognised by their content. EXIF is not applied: boxes are in the stored pixels.

Writes detections.json, or another format, and annotated pictures and videos. Prints a line for each input.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Sequence

from ssd_triton.commands.bulk import add_bulk_options, run_bulk
from ssd_triton.commands.options import add_option
from ssd_triton.commands.shared import add_connection_options
from ssd_triton.common.errors import UserError
from ssd_triton.common.files import relative_to_cwd
from ssd_triton.config import Config

EXAMPLE = "ssd-triton detect street.jpg --serve --output reports/street"


def add_arguments(parser: argparse.ArgumentParser, config: Config) -> None:
    """Add the options of this verb."""
    parser.add_argument(
        "inputs",
        nargs="*",
        metavar="INPUT",
        help="images, folders, patterns, - (standard input), videos, addresses, indices of cameras",
    )
    parser.add_argument("--recursive", action="store_true", help="subfolders of folders too")
    parser.add_argument(
        "--classes", action="append", default=[], metavar="NAMES", help="names of the classes to keep: person,car"
    )
    add_option(parser, config, "--score-thresh", "detect.score_thresh")
    add_option(parser, config, "--output", "detect.output")
    add_option(parser, config, "--format", "detect.format")
    add_option(parser, config, "--pictures", "detect.pictures")
    add_option(parser, config, "--crops", "detect.crops")
    add_option(parser, config, "--labels-path", "labels_path")
    add_bulk_options(parser)
    add_connection_options(parser, config)


def run(args: argparse.Namespace, config: Config) -> int:
    """Detect; return 1 when an input was refused or a frame could not be decoded."""
    if args.manifest is None and not args.inputs:
        raise UserError("got no input, expected images or videos, or --manifest with a list of images")
    from ssd_triton.client.detect import DetectOptions, detect
    from ssd_triton.client.sources import find_sources
    from ssd_triton.common.labels import class_ids_of, load_labels
    from ssd_triton.serving.connect import connect

    labels, settings = load_labels(config.labels_path), config.detect
    class_ids = class_ids_of(_names(args.classes, labels), labels) or None
    if args.manifest is not None:
        return run_bulk(args, config, labels, class_ids)
    options = DetectOptions(
        output=settings.output,
        labels=labels,
        score_thresh=settings.score_thresh,
        class_ids=class_ids,
        format=settings.format,
        pictures=settings.pictures,
        crops=settings.crops,
    )
    sources = find_sources(args.inputs, recursive=args.recursive)
    with connect(config, serve=args.serve, retry_s=config.client.retry_s) as client:
        summary = detect(client, sources, options)
    for path in summary.written:
        print(relative_to_cwd(path))
    return 1 if summary.refused or summary.undecodable_frames else 0


def _names(given: Iterable[str], labels: Sequence[str]) -> Iterator[str]:
    """Split lists of class names at commas, except in names that contain a comma."""
    for names in given:
        yield from [names] if names in labels else map(str.strip, names.split(","))
