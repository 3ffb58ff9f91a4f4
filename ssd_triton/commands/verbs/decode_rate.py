"""Measure how many images a second this machine's cores decode and resize: the upper limit of the preprocessing.

Needs no server. Kinds of files take turns: the files as given, baseline and progressive JPEG of the same pixels, and
large ones, decoded in full and at half their size. Each process has one thread and decodes from memory.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Annotated

from pydantic import Field

from ssd_triton.commands.options import POSITIVE, Typed
from ssd_triton.commands.shared import add_output_option
from ssd_triton.common.cores import usable_cores
from ssd_triton.config import Config

EXAMPLE = "ssd-triton decode-rate --images coco/val2017"


def add_arguments(parser: argparse.ArgumentParser, config: Config) -> None:
    """Add the options of this verb."""
    parser.add_argument("--images", type=Path, help="folder of photographs; by default a bundled one")
    parser.add_argument("--num-images", type=POSITIVE, default=32, help="number of photographs")
    parser.add_argument(
        "--processes", type=POSITIVE, nargs="+", default=sorted({1, usable_cores()}), help="numbers of processes"
    )
    parser.add_argument("--turns", type=POSITIVE, default=5, help="turns of each kind of files")
    parser.add_argument(
        "--seconds", type=Typed(Annotated[float, Field(gt=0, le=60)]), default=1.0, help="duration of a turn, seconds"
    )
    add_output_option(parser, "reports/decode_rate")


def run(args: argparse.Namespace, config: Config) -> int:
    """Measure and print the table."""
    from ssd_triton.measuring.decode_rate import kinds_of, measure_decode_rate, write_report

    kinds = kinds_of(args.images, args.num_images)
    rates = measure_decode_rate(kinds, args.processes, turns=args.turns, seconds=args.seconds)
    print(write_report(args.output, rates), end="")
    return 0
