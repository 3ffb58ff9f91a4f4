"""Measure the images a second of the COCO evaluation's client against perf_analyzer, on a server started for it.

Both send the same images with as many requests under way, in turns; the table gives each round and the medians. Exit
code 1 when the client reaches less than nine tenths of perf_analyzer's rate.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from ssd_triton.commands import runner
from ssd_triton.common.labels import load_labels
from ssd_triton.config import Config
from ssd_triton.evaluation.options import add_dataset_arguments, dataset_from, positive
from ssd_triton.measuring.client_rate import TARGET, measure_client_rate, write_report
from ssd_triton.serving.repository.ensure import ensure_built_if_possible
from ssd_triton.serving.server import EmbeddedServer


def add_arguments(parser: argparse.ArgumentParser, config: Config) -> None:
    """Options of this command."""
    add_dataset_arguments(parser, config)
    parser.set_defaults(limit=60)
    parser.add_argument("--variant", default=config.variant, help="of the detector")
    parser.add_argument("--concurrency", type=positive, default=4, help="requests under way at once")
    parser.add_argument("--rounds", type=positive, default=3, help="turns of each")
    parser.add_argument("--timeout-s", type=float, default=300.0, help="for one measurement, seconds")
    parser.add_argument("--output", type=Path, default=Path("reports/client_rate"), help="folder for table and plot")


def main() -> int:
    """Measure and print the table."""
    args, config = runner.parse(
        str(__doc__),
        "python perf/client_rate.py --images coco/val2017 --annotations coco/annotations/instances_val2017.json",
        add_arguments,
    )
    dataset = dataset_from(args, load_labels(config.labels_path))
    ensure_built_if_possible(config, args.variant, logging.info)
    settings = config.server.for_one_run()
    with EmbeddedServer(config.model_repository, args.variant, settings) as server:
        rates = measure_client_rate(
            server.url("grpc"), dataset, args.concurrency, rounds=args.rounds, timeout_s=args.timeout_s
        )
    print(write_report(args.output, args.variant, rates, len(dataset.images), args.concurrency), end="")
    return 0 if rates.share >= TARGET else 1


if __name__ == "__main__":
    runner.run(main)
