"""Evaluate a served model on COCO: send real images through the ensemble, and compute COCO's twelve figures.

Any annotation file in COCO's format works. Every answer is kept at once: after an interruption, the same command
resumes. Writes detections.json (COCO results), metrics.json and report.html.
"""

from __future__ import annotations

import argparse
import sys

from ssd_triton.commands.options import add_option
from ssd_triton.commands.shared import add_connection_options, add_dataset_options, dataset_of
from ssd_triton.common.files import relative_to_cwd
from ssd_triton.config import Config

EXAMPLE = """ssd-triton coco-eval --images coco/val2017 --annotations coco/annotations/instances_val2017.json \\
      --serve onnx_fp32"""


def add_arguments(parser: argparse.ArgumentParser, config: Config) -> None:
    """Add the options of this verb."""
    add_dataset_options(parser, config)
    add_option(parser, config, "--batch", "coco.batch")
    parser.add_argument("--model", default="ssd", help="ensemble to evaluate")
    add_option(parser, config, "--output", "coco.output")
    parser.add_argument("--restart", action="store_true", help="drop the answers that an earlier run has kept there")
    parser.add_argument("--allow-corrupt", action="store_true", help="exit code 0 although images were refused")
    add_option(parser, config, "--worst-misses", "coco.worst_misses")
    add_option(parser, config, "--labels-path", "labels_path")
    add_option(parser, config, "--weights-path", "weights_path")
    add_option(parser, config, "--retry-s", "client.retry_s")
    add_connection_options(parser, config, in_flight="coco.in_flight")


def run(args: argparse.Namespace, config: Config) -> int:
    """Evaluate; return 1 when the server refused an image."""
    dataset = dataset_of(args, config)
    from ssd_triton.common.labels import load_labels
    from ssd_triton.evaluation.evaluate import Settings, evaluate_served
    from ssd_triton.evaluation.report import summary, write_report
    from ssd_triton.serving.connect import connect

    coco = config.coco
    settings = Settings(
        args.model,
        len(load_labels(config.labels_path)),
        batch=coco.batch,
        restart=args.restart,
        repository=config.model_repository if args.serve is not None else None,
    )
    retry_s = config.client.retry_s
    with connect(config, serve=args.serve, model=args.model, in_flight=coco.in_flight, retry_s=retry_s) as client:
        evaluation = evaluate_served(client, dataset, coco.output, settings, name=args.serve or args.model)
    print(summary(evaluation))
    for path in write_report(evaluation, coco.output, misses=coco.worst_misses):
        print(relative_to_cwd(path))
    for name, reason in evaluation.refused.items():
        print(f"refused: {name}: {reason}", file=sys.stderr)
    if evaluation.refused:
        print(f"{len(evaluation.refused)} images were refused and count as without detections", file=sys.stderr)
    return 1 if evaluation.refused and not args.allow_corrupt else 0
