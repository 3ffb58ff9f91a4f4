"""Offer a server several times the load that saturates it: what is refused, how long the rest takes, how it recovers.

The server is started for it. Requests come at even distances and are never sent twice. Written are overload.md and
overload.png. Exit code 1 when requests failed, refusals were slow, answers took longer than the queue's limit explains,
or fewer were given than without overload.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from ssd_triton.commands import runner
from ssd_triton.config import Config
from ssd_triton.evaluation.options import positive
from ssd_triton.serving.repository.ensure import ensure_built_if_possible
from ssd_triton.serving.server import EmbeddedServer


def add_arguments(parser: argparse.ArgumentParser, config: Config) -> None:
    """Options of this command."""
    parser.add_argument("--variant", default=config.variant, help="of the detector")
    parser.add_argument("--factor", type=float, default=4.0, help="offered load, in saturated rates")
    parser.add_argument("--saturate-s", type=float, default=20.0, help="to find the saturated rate, seconds")
    parser.add_argument("--offer-s", type=float, default=40.0, help="of overload, seconds")
    parser.add_argument("--in-flight", type=positive, default=4, help="requests under way at the saturated rate")
    parser.add_argument("--timeout-s", type=float, default=120.0, help="deadline of a request, seconds")
    parser.add_argument("--output", type=Path, default=Path("reports/overload"), help="folder for table and plot")


def main() -> int:
    """Measure and print the table."""
    args, config = runner.parse(str(__doc__), "python perf/overload.py --factor 4 --offer-s 60", add_arguments)
    from ssd_triton.detector.export.samples import sample_photograph
    from ssd_triton.measuring.overload.report import write_report
    from ssd_triton.measuring.overload.run import OverloadSettings, measure_overload

    ensure_built_if_possible(config, args.variant, logging.info)
    names = ("factor", "saturate_s", "offer_s", "in_flight", "timeout_s")
    settings = OverloadSettings(**{name: getattr(args, name) for name in names})
    ports = config.server.for_one_run()
    with EmbeddedServer(config.model_repository, args.variant, ports) as server:
        result = measure_overload(server, sample_photograph(), settings)
    print(write_report(args.output, result), end="")
    return 1 if result.failures() else 0


if __name__ == "__main__":
    runner.run(main)
