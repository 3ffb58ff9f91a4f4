"""Compare the COCO AP of every variant that runs here with PyTorch FP32: same images, through a server each, in turn.

Prints a Markdown table; writes it, a plot of accuracy over speed, and the report of each variant. Exit code 1 when a
variant lies further from PyTorch FP32 than accuracy in config.yml allows. Interrupted, it goes on where it was.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ssd_triton.commands import runner
from ssd_triton.common.labels import load_labels
from ssd_triton.config import Config
from ssd_triton.evaluation.options import add_dataset_arguments, dataset_from, positive


def add_arguments(parser: argparse.ArgumentParser, config: Config) -> None:
    """Options of this command."""
    add_dataset_arguments(parser, config)
    parser.add_argument("--variant", nargs="+", default=[], help="only these; by default every one of the repository")
    parser.add_argument("--batch", type=positive, default=config.coco.batch, metavar="N", help="images in a request")
    parser.add_argument("--in-flight", type=positive, default=config.coco.in_flight, help="requests under way at once")
    parser.add_argument("--restart", action="store_true", help="drop the answers that an earlier run has kept")
    parser.add_argument("--output", type=Path, default=Path("reports/compare_accuracy"), help="folder for the results")


def main() -> int:
    """Evaluate, compare and print the table."""
    args, config = runner.parse(
        str(__doc__),
        "python tools/compare_accuracy.py --images coco/val2017 --annotations coco/annotations/instances_val2017.json",
        add_arguments,
    )
    dataset = dataset_from(args, load_labels(config.labels_path))
    from ssd_triton.evaluation.compare import Requests, compare, write_comparison

    reference, compared = compare(
        config,
        dataset,
        args.output,
        only=args.variant,
        requests=Requests(args.in_flight, args.batch),
        restart=args.restart,
    )
    print(write_comparison(args.output, reference, compared), end="")
    return 0 if all(one.passed for one in compared) else 1


if __name__ == "__main__":
    runner.run(main)
