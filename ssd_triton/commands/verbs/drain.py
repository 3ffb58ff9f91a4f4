"""Take one of two replicas away under constant traffic, and count the requests that fail.

Two servers are started on this machine. With --way proxy, HAProxy (which must be installed) checks their gRPC health,
balances over them and drains one before it is stopped. With --way client, the client balances over both, and one is
stopped at once. Exit code 1 when a request failed.
"""

from __future__ import annotations

import argparse
from contextlib import ExitStack

from ssd_triton.commands.options import SECONDS, add_option
from ssd_triton.commands.shared import add_output_option
from ssd_triton.config import Config

EXAMPLE = "ssd-triton drain --way proxy client --part-s 20"
_WAYS = ("proxy", "client")


def add_arguments(parser: argparse.ArgumentParser, config: Config) -> None:
    """Add the options of this verb."""
    parser.add_argument("--way", choices=_WAYS, nargs="+", default=list(_WAYS), help="what balances over the replicas")
    add_option(parser, config, "--variant", "variant")
    add_option(parser, config, "--in-flight", "client.in_flight")
    parser.add_argument("--part-s", type=SECONDS, default=20.0, help="duration of traffic before, and again after")
    add_output_option(parser, "reports/drain")


def run(args: argparse.Namespace, config: Config) -> int:
    """Drain, and print a line for each way."""
    from ssd_triton.common.progress import progress
    from ssd_triton.detector.export.samples import sample_photograph
    from ssd_triton.measuring.replicas.drain import drain_under_load, write_report
    from ssd_triton.serving.connect import serve_for_one_run

    reports = []
    for way in progress(args.way, total=len(args.way), description="draining", unit="ways"):
        with ExitStack() as stack:
            first, second = (stack.enter_context(serve_for_one_run(config, config.variant)) for _ in range(2))
            reports.append(
                drain_under_load(
                    way, (first, second), sample_photograph(), in_flight=config.client.in_flight, part_s=args.part_s
                )
            )
        print(f"{config.variant}, {reports[-1].line()}", flush=True)
    write_report(args.output, config.variant, reports)
    return 1 if any(report.failed for report in reports) else 0
