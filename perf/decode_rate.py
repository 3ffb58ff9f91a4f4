"""Measure how many images a second this machine's cores decode and resize, without a server: preprocessing's ceiling.

Kinds of files take turns: as given, baseline and progressive JPEG of the same pixels, and large ones, decoded whole and
at half their size. Processes of one thread each decode what lies in their memory.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ssd_triton.commands import runner
from ssd_triton.common.machine import cores
from ssd_triton.config import Config
from ssd_triton.evaluation.options import positive

_LONGEST_TURN_S = 60.0


def add_arguments(parser: argparse.ArgumentParser, config: Config) -> None:
    """Options of this command."""
    parser.add_argument("--images", type=Path, help="folder of photographs (a bundled one)")
    parser.add_argument("--num-images", type=positive, default=32, help="how many of them")
    parser.add_argument(
        "--processes", type=positive, nargs="+", default=sorted({1, cores()}), help="one, and one for each core"
    )
    parser.add_argument("--turns", type=positive, default=5, help="of each kind of files")
    parser.add_argument("--seconds", type=_duration_s, default=1.0, help="that a turn lasts")
    parser.add_argument("--output", type=Path, default=Path("reports/decode_rate"), help="folder for table and plot")


def _duration_s(text: str) -> float:
    value = float(text)
    if not 0 < value <= _LONGEST_TURN_S:
        raise argparse.ArgumentTypeError(f"got {text}, expected more than 0 and at most {_LONGEST_TURN_S:g}")
    return value


def main() -> int:
    """Measure and print the table."""
    args, _ = runner.parse(str(__doc__), "python perf/decode_rate.py --images coco/val2017", add_arguments)
    from ssd_triton.measuring.decode_rate import kinds_of, measure_decode_rate, write_report

    kinds = kinds_of(args.images, args.num_images)
    rates = measure_decode_rate(kinds, args.processes, turns=args.turns, seconds=args.seconds)
    print(write_report(args.output, rates), end="")
    return 0


if __name__ == "__main__":
    runner.run(main)
