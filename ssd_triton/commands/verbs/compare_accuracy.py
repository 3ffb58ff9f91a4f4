"""Compare the COCO AP of every variant that runs here with PyTorch FP32, on the same images.

A server is started for one variant after another. Prints and writes a Markdown table, and writes a plot of accuracy
over speed and a report for each variant. Exit code 1 when a variant differs from PyTorch FP32 by more than 'accuracy'
in the configuration allows. After an interruption, the same command resumes.
"""

from __future__ import annotations

import argparse

from ssd_triton.commands.options import add_option
from ssd_triton.commands.shared import add_dataset_options, add_output_option, dataset_of
from ssd_triton.config import Config

EXAMPLE = "ssd-triton compare-accuracy --images coco/val2017 --annotations coco/annotations/instances_val2017.json"


def add_arguments(parser: argparse.ArgumentParser, config: Config) -> None:
    """Add the options of this verb."""
    add_dataset_options(parser, config)
    parser.add_argument(
        "--variant",
        nargs="+",
        default=[],
        metavar="NAME",
        help="variants of the detector; by default all that run here",
    )
    add_option(parser, config, "--batch", "coco.batch")
    add_option(parser, config, "--in-flight", "coco.in_flight")
    parser.add_argument("--restart", action="store_true", help="drop the answers that an earlier run has kept")
    add_output_option(parser, "reports/compare_accuracy")


def run(args: argparse.Namespace, config: Config) -> int:
    """Evaluate, compare and print the table."""
    dataset = dataset_of(args, config)
    from ssd_triton.evaluation.compare import Requests, compare, write_comparison

    reference, compared = compare(
        config,
        dataset,
        args.output,
        only=args.variant,
        requests=Requests(config.coco.in_flight, config.coco.batch),
        restart=args.restart,
    )
    print(write_comparison(args.output, reference, compared), end="")
    return 0 if all(one.passed for one in compared) else 1
