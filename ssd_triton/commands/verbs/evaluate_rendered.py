"""Report how much of rendered traffic a detector sees: recall by kind and range, and false boxes a frame.

The images come from 'ssd-triton render-dataset', or from a clip of 'ssd-triton render-scenario --annotations'. They go
through the server or, with --weights-path, through PyTorch in FP32. Writes a table, figures, a plot and pictures of the
worst frames.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ssd_triton.commands.options import COUNT, POSITIVE
from ssd_triton.commands.shared import add_connection_options, add_criteria_options, add_output_option, criteria_of
from ssd_triton.common.files import relative_to_cwd
from ssd_triton.config import Config

EXAMPLE = """ssd-triton render-dataset reports/rendered --count 200 --seed 900
  ssd-triton evaluate-rendered reports/rendered/images reports/rendered/annotations.json --serve onnx_int8"""


def add_arguments(parser: argparse.ArgumentParser, config: Config) -> None:
    """Add the options of this verb."""
    parser.add_argument("images", type=Path, metavar="IMAGES", help="folder of images, or MP4 clip")
    parser.add_argument("annotations", type=Path, metavar="JSON", help="annotations of the images")
    parser.add_argument("--weights-path", type=Path, help="weights to judge in PyTorch, without a server")
    parser.add_argument("--limit", type=POSITIVE, help="number of images, spread evenly; by default all of them")
    parser.add_argument("--worst", type=COUNT, default=8, help="number of pictures of the worst frames")
    add_output_option(parser, "reports/rendered_recall")
    add_criteria_options(parser, config)
    add_connection_options(parser, config)


def run(args: argparse.Namespace, config: Config) -> int:
    """Detect, judge and print the table."""
    from ssd_triton.common.labels import load_labels
    from ssd_triton.serving.connect import connect
    from ssd_triton.simulation.judging.visibility import judge
    from ssd_triton.simulation.judging.visibility_images import RenderedImages, offline, served
    from ssd_triton.simulation.judging.visibility_report import describe, recall_table, write_report

    labels = load_labels(config.labels_path)
    criteria = criteria_of(args, config)
    images = RenderedImages(args.images, args.annotations, args.limit)
    if args.weights_path is not None:
        visibility = judge(images.truth, offline(images, args.weights_path, config.backbone, labels), labels, criteria)
    else:
        with connect(config, serve=args.serve) as client:
            visibility = judge(images.truth, served(images, client), labels, criteria)
    facts = describe(args.serve or config.client.url or "running", args.weights_path, args.images)
    written = write_report(args.output, visibility, facts, images.pixels_of, labels, args.worst)
    print(recall_table(visibility))
    for path in written:
        print(relative_to_cwd(path))
    return 0
