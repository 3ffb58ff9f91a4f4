"""Measure images a second and latency of a server with Triton's perf_analyzer, as described by a sweep file.

Starts a server for each variant and setting, or uses a running one (--url). Every measurement is kept at once: after an
interruption, the same command resumes. Writes a table, plots, a page and a summary at the end. Exit code 1 when a
measurement failed.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ssd_triton.config import Config

EXAMPLE = "ssd-triton sweep perf/sweeps/cpu.yml"


def add_arguments(parser: argparse.ArgumentParser, config: Config) -> None:
    """Add the options of this verb."""
    parser.add_argument("sweep", type=Path, metavar="FILE", help="sweep file, such as those in perf/sweeps/")
    parser.add_argument("--url", help="host:port of a running server, gRPC; by default servers are started")
    parser.add_argument("--http-url", help="host:port of that server for loads over HTTP")
    parser.add_argument("--metrics-url", help="host:port/metrics of that server, for figures of a GPU")
    parser.add_argument("--images", type=Path, help="images to send, instead of the sweep file's")
    parser.add_argument("--output", type=Path, help="folder for the results; by default reports/sweeps/NAME")
    parser.add_argument("--restart", action="store_true", help="drop the results that are there")
    parser.add_argument("--list", action="store_true", help="only check the file, and print what would be measured")


def run(args: argparse.Namespace, config: Config) -> int:
    """Measure, report, and print the summary."""
    from ssd_triton.measuring.sweeps.sweep_file import load_sweep, points

    sweep = load_sweep(args.sweep)
    if args.images is not None:
        sweep = sweep.model_copy(update={"images": args.images})
    if args.list:
        for variant in sweep.variants or ("<each variant that runs here>",):
            print("\n".join(f"{sweep.rounds} x {point}" for point in points(sweep, variant)))
        return 0
    from ssd_triton.client.endpoint import parse_endpoint
    from ssd_triton.measuring.sweeps.report import write_report
    from ssd_triton.measuring.sweeps.sweep_plan import Endpoints, make_plan
    from ssd_triton.measuring.sweeps.sweep_run import run_sweep

    endpoints = None
    if args.url is not None:
        http = args.http_url and parse_endpoint(args.http_url, "http").target
        endpoints = Endpoints(parse_endpoint(args.url, "grpc").target, http, args.metrics_url)
    folder = args.output or Path("reports/sweeps") / args.sweep.stem
    plan = make_plan(sweep, config, endpoints)
    rows = run_sweep(plan, config, folder, endpoints=endpoints, restart=args.restart)
    print(write_report(folder), end="")
    failed = sum(row.status == "failed" for row in rows)
    print(f"report: {folder / 'report.html'}, {failed} measurements failed", file=sys.stderr)
    return 1 if failed else 0
