"""Average the weights of a network and of one fine-tuned from it, and keep the average that is best on all sets.

A is a checkpoint whose accuracy on photographs should be kept; B was fine-tuned from A. Averages with several shares of
B are evaluated. Writes into --output-folder: weights.safetensors (FP16, for weights_path) and MODEL_CARD.md of the best
average that keeps A's accuracy, and interpolation.md, interpolation.json and interpolation.png.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ssd_triton.commands.options import FRACTION, SHARE, add_option
from ssd_triton.commands.shared import (
    add_criteria_options,
    add_device_option,
    add_set_option,
    add_shift_option,
    criteria_of,
    sets_of,
    shifts_of,
)
from ssd_triton.common.files import relative_to_cwd
from ssd_triton.config import Config

EXAMPLE = """ssd-triton interpolate weights/ssd300_resnet50_demo.safetensors reports/training/weights.safetensors \\
      --output-folder reports/interpolated --shares 0.2 0.4 0.6 0.8 \\
      --validation coco/val coco/instances_val.json \\
      --validation reports/rendered/val/images reports/rendered/val/annotations.json 0.3"""


def add_arguments(parser: argparse.ArgumentParser, config: Config) -> None:
    """Add the options of this verb."""
    parser.add_argument("first", type=Path, metavar="A", help="weights whose accuracy on photographs should be kept")
    parser.add_argument("second", type=Path, metavar="B", help="weights that were fine-tuned from A")
    parser.add_argument("--output-folder", type=Path, required=True, help="folder for everything that is written")
    parser.add_argument(
        "--shares",
        type=SHARE,
        nargs="+",
        default=[0.2, 0.4, 0.6, 0.8],
        help="shares of B, above 0 and below 1; A and B alone are candidates too",
    )
    add_set_option(
        parser,
        "--validation",
        "folder and COCO file to choose by, and a WEIGHT of its AP, 1 by default; repeat for more sets; those of "
        "'ssd-triton render-dataset' also report what is seen of rendered traffic",
    )
    parser.add_argument("--also", type=Path, nargs="+", default=[], help="weights to evaluate, not to average")
    parser.add_argument(
        "--max-loss", type=FRACTION, default=0.002, help="largest loss of AP against A on each set of photographs"
    )
    parser.add_argument("--choose", type=FRACTION, help="share to keep, 0 to 1, whatever the figures")
    add_shift_option(parser)
    add_option(parser, config, "--backbone", "backbone")
    add_option(parser, config, "--labels-path", "labels_path")
    add_device_option(parser)
    add_criteria_options(parser, config)


def run(args: argparse.Namespace, config: Config) -> int:
    """Average, evaluate, choose, and print the table."""
    validation = sets_of("--validation", args.validation)
    from ssd_triton.common.labels import load_labels
    from ssd_triton.detector.device import choose_device
    from ssd_triton.training.class_map import ClassMap
    from ssd_triton.training.examples import Source
    from ssd_triton.training.interpolate import Mixture, interpolate
    from ssd_triton.training.interpolation_report import candidates_table

    labels = load_labels(config.labels_path)
    mixture = Mixture(
        first=args.first,
        second=args.second,
        shares=args.shares,
        others=args.also,
        validation=[Source(*values) for values in validation],
        classes=ClassMap(labels, labels, config.coco.name_map),
        backbone=config.backbone,
        criteria=criteria_of(args, config),
        max_loss=args.max_loss,
        chosen_share=args.choose,
        shifts=shifts_of(args, labels),
    )
    outcome = interpolate(mixture, args.output_folder, choose_device(args.device))
    print(candidates_table(outcome).markdown())
    print(f"{relative_to_cwd(args.output_folder)}: {outcome.chosen.name}; model card and plot beside the weights")
    return 0
