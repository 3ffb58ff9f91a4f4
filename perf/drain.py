"""Take one of two replicas away while requests come without a pause, and count the requests that fail.

Two servers are started on this machine. With --way proxy, HAProxy (which must be installed) checks their gRPC health,
balances over them and drains one before it is stopped; with --way client, the client balances over both, and one is
stopped at once. Exit code 1 when a request has failed.
"""

from __future__ import annotations

import argparse
import logging
from contextlib import ExitStack
from pathlib import Path

from ssd_triton.commands import runner
from ssd_triton.common.progress import progress
from ssd_triton.config import Config
from ssd_triton.detector.export.samples import sample_photograph
from ssd_triton.measuring.replicas.drain import WAYS, drain_under_load, write_report
from ssd_triton.serving.repository.ensure import ensure_built_if_possible
from ssd_triton.serving.server import EmbeddedServer


def add_arguments(parser: argparse.ArgumentParser, config: Config) -> None:
    """Options of this command."""
    parser.add_argument("--way", choices=WAYS, nargs="+", default=list(WAYS), help="who balances")
    parser.add_argument("--variant", default=config.variant, help="of the detector")
    parser.add_argument("--in-flight", type=int, default=config.client.in_flight, help="requests under way at once")
    parser.add_argument("--part-s", type=float, default=20.0, help="seconds of traffic before, and again after")
    parser.add_argument("--output", type=Path, default=Path("reports/drain"), help="folder for figures and plot")


def main() -> int:
    """Drain, and print a line for each way."""
    args, config = runner.parse(str(__doc__), "python perf/drain.py --way proxy client --part-s 20", add_arguments)
    ensure_built_if_possible(config, args.variant, logging.info)
    settings = config.server.for_one_run()
    reports = []
    for way in progress(args.way, total=len(args.way), description="draining", unit="ways"):
        with ExitStack() as stack:
            servers = [EmbeddedServer(config.model_repository, args.variant, settings) for _ in range(2)]
            replicas = [stack.enter_context(server) for server in servers]
            reports.append(
                drain_under_load(
                    way,
                    (replicas[0], replicas[1]),
                    sample_photograph(),
                    in_flight=args.in_flight,
                    part_s=args.part_s,
                )
            )
        print(f"{args.variant}, {reports[-1].line()}", flush=True)
    write_report(args.output, args.variant, reports)
    return 1 if any(report.failed for report in reports) else 0


if __name__ == "__main__":
    runner.run(main)
