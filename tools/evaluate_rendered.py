"""Tell how much of rendered traffic a detector sees: recall by kind and range, and false boxes a frame.

The images are a folder of tools/render_dataset.py, or a clip of tools/render_scenario.py --annotations. They go through
the server, or with --weights-path, PyTorch in FP32. Writes a table, figures, a plot and pictures of the worst frames.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ssd_triton.commands import runner
from ssd_triton.common.files import relative_to_cwd
from ssd_triton.common.labels import load_labels
from ssd_triton.config import Config
from ssd_triton.evaluation.options import add_criteria_arguments, criteria_of, positive
from ssd_triton.serving.connect import add_connection_arguments, connect

EXAMPLE = """python tools/render_dataset.py reports/rendered --count 200 --seed 900
  python tools/evaluate_rendered.py reports/rendered/images reports/rendered/annotations.json --serve onnx_int8"""


def add_arguments(parser: argparse.ArgumentParser, config: Config) -> None:
    """Options of this command."""
    parser.add_argument("images", type=Path, metavar="IMAGES", help="folder, or MP4 clip")
    parser.add_argument("annotations", type=Path, metavar="JSON", help="their annotations")
    parser.add_argument("--weights-path", type=Path, metavar="FILE", help="judge these weights, without a server")
    parser.add_argument("--limit", type=positive, metavar="N", help="images, spread evenly; None takes all")
    parser.add_argument("--worst", type=int, default=8, metavar="N", help="pictures of the worst frames")
    parser.add_argument("--output", type=Path, default=Path("reports/rendered_recall"), help="folder for the results")
    add_criteria_arguments(parser, config)
    add_connection_arguments(parser, config)


def main() -> int:
    """Detect, judge and print the table."""
    args, config = runner.parse(str(__doc__), EXAMPLE, add_arguments)
    from ssd_triton.simulation.judging.visibility import judge
    from ssd_triton.simulation.judging.visibility_images import RenderedImages, offline, served
    from ssd_triton.simulation.judging.visibility_report import describe, recall_table, write_report

    labels = load_labels(config.labels_path)
    criteria = criteria_of(args, config)
    images = RenderedImages(args.images, args.annotations, args.limit)
    if args.weights_path is not None:
        visibility = judge(images.truth, offline(images, args.weights_path, config.backbone, labels), labels, criteria)
    else:
        with connect(args, config) as client:
            visibility = judge(images.truth, served(images, client), labels, criteria)
    facts = describe(args.serve or args.url or "running", args.weights_path, args.images)
    written = write_report(args.output, visibility, facts, images.pixels_of, labels, args.worst)
    print(recall_table(visibility))
    for path in written:
        print(relative_to_cwd(path))
    return 0


if __name__ == "__main__":
    runner.run(main)
