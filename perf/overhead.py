"""Measure what the ensemble ssd costs over the bare detector, with perf_analyzer on a server started for it.

Both models are measured in turns on the same server; the table gives medians over the rounds.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from ssd_triton import cli
from ssd_triton.config import Config
from ssd_triton.files import atomic_output
from ssd_triton.perf.overhead import measure_overhead, table
from ssd_triton.repository.ensure import ensure_built_if_possible
from ssd_triton.server import EmbeddedServer


def add_arguments(parser: argparse.ArgumentParser, config: Config) -> None:
    """Options of this command."""
    parser.add_argument("--variant", default=config.variant, help="of the detector")
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 4], help="requests under way at once")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each model")
    parser.add_argument("--requests", type=int, default=20, help="in a measurement window")
    parser.add_argument("--timeout-s", type=float, default=300.0, help="for one measurement, seconds")
    parser.add_argument("--output", type=Path, default=Path("reports/overhead.md"), help="Markdown table")


def main() -> int:
    """Measure and print the table."""
    args, config = cli.parse(str(__doc__), "python perf/overhead.py --concurrency 1 4 --rounds 3", add_arguments)
    ensure_built_if_possible(config, args.variant, logging.info)
    settings = config.server.for_one_run()
    with EmbeddedServer(config.model_repository, args.variant, settings) as server:
        series = measure_overhead(
            server.url("grpc"),
            args.concurrency,
            rounds=args.rounds,
            requests=args.requests,
            timeout_s=args.timeout_s,
        )
    with atomic_output(args.output) as temporary:
        temporary.write_text(table(series) + "\n", encoding="utf-8")
    print(table(series))
    return 0


if __name__ == "__main__":
    cli.run(main)
