"""Offer a server several times the load that saturates it, and measure refusals, latency and recovery.

The server is started for this. Requests are sent at even intervals and are never retried. Writes overload.md and
overload.png. Exit code 1 when requests failed, none was refused, refusals were slow, answers took longer than the
queue's limit explains, or the rate of answers fell below 80 % of the saturated rate.
"""

from __future__ import annotations

import argparse

from ssd_triton.commands.options import POSITIVE, POSITIVE_NUMBER, SECONDS, add_option
from ssd_triton.commands.shared import add_output_option
from ssd_triton.config import Config

EXAMPLE = "ssd-triton overload --factor 4 --offer-s 60"


def add_arguments(parser: argparse.ArgumentParser, config: Config) -> None:
    """Add the options of this verb."""
    add_option(parser, config, "--variant", "variant")
    parser.add_argument(
        "--factor", type=POSITIVE_NUMBER, default=4.0, help="offered load, in multiples of the saturated rate"
    )
    parser.add_argument("--saturate-s", type=SECONDS, default=20.0, help="time in which the saturated rate is measured")
    parser.add_argument("--offer-s", type=SECONDS, default=40.0, help="duration of the overload")
    parser.add_argument(
        "--in-flight", type=POSITIVE, default=4, help="requests in flight while the saturated rate is measured"
    )
    parser.add_argument("--timeout-s", type=SECONDS, default=120.0, help="deadline of a request")
    add_output_option(parser, "reports/overload")


def run(args: argparse.Namespace, config: Config) -> int:
    """Measure and print the table."""
    from ssd_triton.detector.export.samples import sample_photograph
    from ssd_triton.measuring.overload.report import write_report
    from ssd_triton.measuring.overload.run import OverloadSettings, measure_overload
    from ssd_triton.serving.connect import serve_for_one_run

    settings = OverloadSettings(
        factor=args.factor,
        saturate_s=args.saturate_s,
        offer_s=args.offer_s,
        in_flight=args.in_flight,
        timeout_s=args.timeout_s,
    )
    with serve_for_one_run(config, config.variant) as server:
        result = measure_overload(server, sample_photograph(), settings)
    print(write_report(args.output, result), end="")
    return 1 if result.failures() else 0
