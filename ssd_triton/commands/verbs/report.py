"""Write the report of a sweep again, optionally with other measurements, or compare it with an earlier sweep.

Without --baseline, writes a table, plots, a page and a summary. With --baseline, writes the changes beyond noise, and
exits with 1 when something became worse.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ssd_triton.config import Config

EXAMPLE = """ssd-triton report reports/sweeps/cpu --accuracy reports/compare_accuracy
  ssd-triton report reports/sweeps/cpu --baseline perf/results/cpu"""


def add_arguments(parser: argparse.ArgumentParser, config: Config) -> None:
    """Add the options of this verb."""
    parser.add_argument("results", type=Path, metavar="FOLDER", help="folder that 'ssd-triton sweep' has written")
    parser.add_argument("--baseline", type=Path, help="earlier sweep to compare with")
    parser.add_argument("--benchmark", type=Path, help="benchmark.csv of 'ssd-triton benchmark': the detector alone")
    parser.add_argument(
        "--accuracy", type=Path, help="results of 'ssd-triton compare-accuracy', for accuracy over speed"
    )
    parser.add_argument(
        "--output",
        type=Path,
        help="folder of the report; by default the folder of the results, or reports/comparison for a comparison",
    )


def run(args: argparse.Namespace, config: Config) -> int:
    """Report or compare, and print the summary."""
    from ssd_triton.measuring.sweeps.comparison import compare
    from ssd_triton.measuring.sweeps.measurements import read_measurements
    from ssd_triton.measuring.sweeps.point_summary import summarize
    from ssd_triton.measuring.sweeps.report import read_accuracy, read_benchmark, write_comparison, write_report

    if args.baseline is not None:
        before, after = (summarize(read_measurements(folder)) for folder in (args.baseline, args.results))
        changes = compare(before, after)
        print(write_comparison(args.output or Path("reports/comparison"), changes), end="")
        return 1 if any(change.verdict == "worse" for change in changes) else 0
    bare = None if args.benchmark is None else read_benchmark(args.benchmark)
    accuracy = None if args.accuracy is None else read_accuracy(args.accuracy)
    print(write_report(args.results, output=args.output, bare=bare, accuracy=accuracy), end="")
    return 0
