"""Evaluate what a Triton server serves on COCO: real images through the ensemble, pycocotools' twelve figures out.

Any annotation file in COCO's format works. Answers are kept as they come: run the same command again after an
interruption and it goes on from there. Writes detections.json (COCO results), metrics.json and report.html.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ssd_triton.commands import runner
from ssd_triton.common.files import relative_to_cwd
from ssd_triton.common.labels import load_labels
from ssd_triton.config import Config
from ssd_triton.evaluation.options import add_dataset_arguments, dataset_from, positive
from ssd_triton.serving.connect import add_connection_arguments, connect


def add_arguments(parser: argparse.ArgumentParser, config: Config) -> None:
    """Options of this command."""
    add_dataset_arguments(parser, config)
    parser.add_argument("--batch", type=positive, default=config.coco.batch, metavar="N", help="images in a request")
    parser.add_argument("--model", default="ssd", help="the ensemble to evaluate")
    parser.add_argument("--output", type=Path, default=config.coco.output, help="folder for answers and report")
    parser.add_argument("--restart", action="store_true", help="drop the answers that an earlier run has kept there")
    parser.add_argument("--allow-corrupt", action="store_true", help="exit with 0 although images were refused")
    parser.add_argument("--worst-misses", type=int, default=config.coco.worst_misses, metavar="N", help="pictures")
    parser.add_argument("--labels-path", type=Path, default=config.labels_path, help="of the model, one class a line")
    parser.add_argument(
        "--weights-path", type=Path, default=config.weights_path, help="what --serve builds the model from"
    )
    parser.add_argument(
        "--retry-s",
        type=float,
        default=config.coco.retry_s,
        help="how long a request is tried again while the server is away, seconds; not with --serve",
    )
    add_connection_arguments(parser, config)
    parser.set_defaults(in_flight=config.coco.in_flight)


def main() -> int:
    """Evaluate; exit code 1 when the server refused an image."""
    args, config = runner.parse(
        str(__doc__),
        "python clients/coco_eval.py --images coco/val2017 --annotations coco/annotations/instances_val2017.json "
        "--serve onnx_fp32",
        add_arguments,
    )
    config = config.model_copy(update={"weights_path": args.weights_path})
    from ssd_triton.evaluation.evaluate import Settings, evaluate_served
    from ssd_triton.evaluation.report import summary, write_report

    labels = load_labels(args.labels_path)
    dataset = dataset_from(args, labels)
    settings = Settings(
        args.model,
        len(labels),
        batch=args.batch,
        restart=args.restart,
        repository=config.model_repository if args.serve is not None else None,
    )
    with connect(args, config, model=args.model, retry_s=args.retry_s) as client:
        evaluation = evaluate_served(client, dataset, args.output, settings, name=args.serve or args.model)
    print(summary(evaluation))
    for path in write_report(evaluation, args.output, misses=args.worst_misses):
        print(relative_to_cwd(path))
    for name, reason in evaluation.refused.items():
        print(f"refused: {name}: {reason}", file=sys.stderr)
    if evaluation.refused:
        print(f"{len(evaluation.refused)} images were refused and count as without detections", file=sys.stderr)
    return 1 if evaluation.refused and not args.allow_corrupt else 0


if __name__ == "__main__":
    runner.run(main)
