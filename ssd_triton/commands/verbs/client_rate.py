"""Compare the images a second of the COCO evaluation's client with perf_analyzer, on a server started for this.

Both send the same images with the same number of requests in flight, in turns; the table gives each round and the
medians. Exit code 1 when the client reaches less than 90 % of perf_analyzer's rate.
"""

from __future__ import annotations

import argparse

from ssd_triton.commands.options import POSITIVE, SECONDS, add_option
from ssd_triton.commands.shared import add_dataset_options, add_output_option, dataset_of
from ssd_triton.config import Config

EXAMPLE = """ssd-triton client-rate --images coco/val2017 --limit 60 \\
      --annotations coco/annotations/instances_val2017.json"""


def add_arguments(parser: argparse.ArgumentParser, config: Config) -> None:
    """Add the options of this verb."""
    add_dataset_options(parser, config)
    add_option(parser, config, "--variant", "variant")
    parser.add_argument("--concurrency", type=POSITIVE, default=4, help="requests in flight at once")
    parser.add_argument("--rounds", type=POSITIVE, default=3, help="turns of each")
    parser.add_argument("--timeout-s", type=SECONDS, default=300.0, help="deadline of one measurement")
    add_output_option(parser, "reports/client_rate")


def run(args: argparse.Namespace, config: Config) -> int:
    """Measure and print the table."""
    dataset = dataset_of(args, config)
    from ssd_triton.measuring.client_rate import TARGET, measure_client_rate, write_report
    from ssd_triton.serving.connect import serve_for_one_run

    with serve_for_one_run(config, config.variant) as server:
        rates = measure_client_rate(
            server.url("grpc"), dataset, args.concurrency, rounds=args.rounds, timeout_s=args.timeout_s
        )
    print(write_report(args.output, config.variant, rates, len(dataset.images), args.concurrency), end="")
    return 0 if rates.share >= TARGET else 1
