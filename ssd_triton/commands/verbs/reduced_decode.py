"""Measure the AP lost and the time saved by decoding large JPEG files at a reduced scale, through the ensemble ssd.

Images are enlarged until decoding at half their size just applies, which is the worst case of each ratio. The result
helps to choose reduced_decode_ratio in model_repository/ssd_preprocess/config.pbtxt.
"""

from __future__ import annotations

import argparse
import logging

from ssd_triton.commands.options import POSITIVE_NUMBER, add_option
from ssd_triton.commands.shared import add_dataset_options, add_output_option, dataset_of
from ssd_triton.config import Config

EXAMPLE = "ssd-triton reduced-decode --images coco/val2017 --annotations coco/annotations/instances_val2017.json"


def add_arguments(parser: argparse.ArgumentParser, config: Config) -> None:
    """Add the options of this verb."""
    add_dataset_options(parser, config)
    add_option(parser, config, "--variant", "variant")
    parser.add_argument(
        "--ratio", type=POSITIVE_NUMBER, nargs="+", default=[1.0, 2.0], help="values of reduced_decode_ratio"
    )
    add_output_option(parser, "reports/reduced_decode")


def run(args: argparse.Namespace, config: Config) -> int:
    """Measure and print the table."""
    dataset = dataset_of(args, config)
    from ssd_triton.measuring.reduced_decode import measure_reduced_decode, write_report
    from ssd_triton.serving.repository.ensure import ensure_built_if_possible

    ensure_built_if_possible(config, config.variant, logging.info)
    costs = measure_reduced_decode(config, config.variant, dataset, args.ratio)
    print(write_report(args.output, f"{config.variant}, {dataset.set_name}, enlarged", costs), end="")
    return 0
