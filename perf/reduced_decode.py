"""Measure what decoding large JPEG files at a reduced scale costs in AP and saves in time, through the ensemble ssd.

Images are enlarged until decoding at half their size just applies: the worst case of each ratio. Decides the parameter
reduced_decode_ratio in model_repository/ssd_preprocess/config.pbtxt.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from ssd_triton.commands import runner
from ssd_triton.common.labels import load_labels
from ssd_triton.config import Config
from ssd_triton.evaluation.options import add_dataset_arguments, dataset_from
from ssd_triton.serving.repository.ensure import ensure_built_if_possible


def add_arguments(parser: argparse.ArgumentParser, config: Config) -> None:
    """Options of this command."""
    add_dataset_arguments(parser, config)
    parser.add_argument("--variant", default=config.variant, help="of the detector")
    parser.add_argument("--ratio", type=float, nargs="+", default=[1.0, 2.0], help="values of reduced_decode_ratio")
    parser.add_argument("--output", type=Path, default=Path("reports/reduced_decode"), help="folder for table and plot")


def main() -> int:
    """Measure and print the table."""
    args, config = runner.parse(
        str(__doc__),
        "python perf/reduced_decode.py --images coco/val2017 --annotations coco/annotations/instances_val2017.json",
        add_arguments,
    )
    dataset = dataset_from(args, load_labels(config.labels_path))
    ensure_built_if_possible(config, args.variant, logging.info)
    from ssd_triton.measuring.reduced_decode import measure_reduced_decode, write_report

    costs = measure_reduced_decode(config, args.variant, dataset, args.ratio)
    print(write_report(args.output, f"{args.variant}, {dataset.set_name}, enlarged", costs), end="")
    return 0


if __name__ == "__main__":
    runner.run(main)
