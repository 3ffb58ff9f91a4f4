"""Measure images a second and latency of what is served, as a sweep's file says, with Triton's perf_analyzer.

Starts a server for each variant and setting, or uses one that runs (--url). What is measured is kept at once:
interrupted, the same command goes on where it was. Writes a table, plots, a page and a summary at the end. Exit code 1
when a measurement failed.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ssd_triton.commands import runner
from ssd_triton.config import Config
from ssd_triton.measuring.sweeps.sweep_file import load_sweep, points


def add_arguments(parser: argparse.ArgumentParser, config: Config) -> None:
    """Options of this command."""
    parser.add_argument("sweep", type=Path, help="a sweep's file, such as those in perf/sweeps/")
    parser.add_argument("--url", help="host:port of a server that runs already, gRPC; None starts servers")
    parser.add_argument("--http-url", help="its host:port for loads over HTTP")
    parser.add_argument("--metrics-url", help="its host:port/metrics, for the figures of a GPU")
    parser.add_argument("--images", type=Path, help="folder of images to send; None takes what the file says")
    parser.add_argument("--output", type=Path, help="folder for the results; None takes reports/sweeps/NAME")
    parser.add_argument("--restart", action="store_true", help="drop the results that are there")
    parser.add_argument("--list", action="store_true", help="only check the file, and print what would be measured")


def main() -> int:
    """Measure, report, and print the summary."""
    args, config = runner.parse(str(__doc__), "python perf/sweep.py perf/sweeps/cpu.yml", add_arguments)
    sweep = load_sweep(args.sweep)
    if args.images is not None:
        sweep = sweep.model_copy(update={"images": args.images})
    if args.list:
        for variant in sweep.variants or ("<each variant that runs here>",):
            print("\n".join(f"{sweep.rounds} x {point}" for point in points(sweep, variant)))
        return 0
    from ssd_triton.measuring.sweeps.report import write_report
    from ssd_triton.measuring.sweeps.sweep_plan import Endpoints, make_plan
    from ssd_triton.measuring.sweeps.sweep_run import run_sweep

    endpoints = None if args.url is None else Endpoints(args.url, args.http_url, args.metrics_url)
    folder = args.output or Path("reports/sweeps") / args.sweep.stem
    plan = make_plan(sweep, config, endpoints)
    rows = run_sweep(plan, config, folder, endpoints=endpoints, restart=args.restart)
    print(write_report(folder), end="")
    failed = sum(row.status == "failed" for row in rows)
    print(f"report: {folder / 'report.html'}, {failed} measurements failed", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    runner.run(main)
