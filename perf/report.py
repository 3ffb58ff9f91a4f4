"""Report a sweep again, with figures from elsewhere, or compare it with an earlier one.

Without --baseline: writes a table, plots, a page and a summary. With it: writes what changed beyond noise, and exits
with 1 when something became worse.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ssd_triton.commands import runner
from ssd_triton.config import Config


def add_arguments(parser: argparse.ArgumentParser, config: Config) -> None:
    """Options of this command."""
    parser.add_argument("results", type=Path, help="folder that perf/sweep.py has written")
    parser.add_argument("--baseline", type=Path, help="folder of an earlier sweep, to compare with")
    parser.add_argument("--benchmark", type=Path, help="benchmark.csv of tools/benchmark.py: the detector alone")
    parser.add_argument("--accuracy", type=Path, help="folder of tools/compare_accuracy.py: accuracy against speed")
    parser.add_argument(
        "--output", type=Path, help="folder of the report; None: that of the results, reports/comparison"
    )


def main() -> int:
    """Report or compare, and print the summary."""
    args, _ = runner.parse(
        str(__doc__),
        "python perf/report.py reports/sweeps/cpu --accuracy reports/compare_accuracy\n"
        "  python perf/report.py reports/sweeps/cpu --baseline perf/results/cpu",
        add_arguments,
    )
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


if __name__ == "__main__":
    runner.run(main)
