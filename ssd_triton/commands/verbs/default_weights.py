"""Make weights that work on photographs as well as on rendered traffic, in one run.

Trains on photographs, from a checkpoint or an ImageNet backbone, while rendered traffic is drawn in parallel. Then
fine-tunes the result on rendered traffic, with the trained network as its own teacher on photographs. Finally averages
both networks with several shares, and keeps the best average that is as good on photographs. With
--compare-backbone-weights or --compare-checkpoint, a second training on photographs starts there, and the better of
the two is used. All files are in --output; --output/chosen has the best weights with their model card, figures and
pictures. After an interruption, the same command resumes.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Annotated

from pydantic import Field

from ssd_triton.commands.options import FRACTION, POSITIVE, SHARE, Typed
from ssd_triton.commands.shared import (
    add_criteria_options,
    add_device_option,
    add_output_option,
    add_set_option,
    add_shift_option,
    criteria_of,
    sets_of,
    shifts_of,
)
from ssd_triton.common.cores import usable_cores
from ssd_triton.common.files import ROOT, relative_to_cwd
from ssd_triton.config import Config, TrainingConfig
from ssd_triton.config.layers import dotted_layer, merge, with_file

EXAMPLE = """ssd-triton default-weights --photographs coco/train coco/instances_train.json --photographs labelled \\
      --validation coco/val coco/instances_val.json --backbone-weights resnet50.npz --output reports/default_weights"""


def add_arguments(parser: argparse.ArgumentParser, config: Config) -> None:
    """Add the options of this verb."""
    add_set_option(
        parser,
        "--photographs",
        "folder and COCO file of photographs to train on, and a WEIGHT, by default the number of images; or one folder "
        "that holds images/ and annotations.json, or folders that do; repeat for more sets",
        required=True,
    )
    parser.add_argument(
        "--validation", nargs=2, required=True, metavar=("IMAGES", "ANNOTATIONS"), help="photographs to choose by"
    )
    _add_start(parser, "", "starts the training on photographs")
    _add_start(parser, "compare-", "starts a second one, to compare; by default none")
    parser.add_argument("--drive", type=Path, help="images without annotations, to look at")
    add_output_option(parser, "reports/default_weights")
    parser.add_argument(
        "--rendered",
        type=POSITIVE,
        nargs=2,
        default=(13000, 200),
        metavar=("TRAIN", "VAL"),
        help="numbers of images to draw, VAL for each of two sets",
    )
    parser.add_argument("--processes", type=POSITIVE, default=usable_cores(), help="number of processes that draw")
    parser.add_argument(
        "--learn-annotations",
        action="store_true",
        help="fine-tune on the photographs' annotations, not on what the network sees in them",
    )
    parser.add_argument(
        "--real-share", type=SHARE, default=0.4, help="part of the draws that are photographs in fine-tuning"
    )
    for name, recipe in (("photographs", "photographs"), ("fine-tune", "fine_tune")):
        default = ROOT / f"recipes/{recipe}.yml"
        parser.add_argument(
            f"--{name}-recipe", type=Path, default=default, metavar="FILE", help="settings of that training"
        )
        parser.add_argument(f"--{name}-steps", type=POSITIVE, metavar="N", help="steps, instead of the recipe's")
    parser.add_argument(
        "--batch", type=Typed(Annotated[int, Field(ge=2)]), help="images in a step, instead of the recipes'"
    )
    parser.add_argument(
        "--shares",
        type=SHARE,
        nargs="+",
        default=[0.5, 0.75, 0.9],
        help="shares of the fine-tuned network to try, above 0 and below 1; both networks alone are candidates too",
    )
    add_shift_option(parser)
    parser.add_argument(
        "--max-loss", type=FRACTION, default=0.002, help="largest loss of AP on photographs by fine-tuning"
    )
    parser.add_argument("--data-note", action="append", default=[], metavar="TEXT", help="line for the model cards")
    add_device_option(parser)
    parser.add_argument(
        "--compare-device",
        help="device of the second training, such as cuda:1, so that both train at once",
    )
    add_criteria_options(parser, config)


def _add_start(parser: argparse.ArgumentParser, prefix: str, use: str) -> None:
    start = parser.add_mutually_exclusive_group()
    start.add_argument(f"--{prefix}checkpoint", type=Path, help=f"checkpoint that {use}")
    start.add_argument(f"--{prefix}backbone-weights", type=Path, help=f"ImageNet backbone that {use}")


def run(args: argparse.Namespace, config: Config) -> int:
    """Make the weights, and print the figures."""
    photographs = sets_of("--photographs", args.photographs)
    [validation] = sets_of("--validation", [args.validation])
    from ssd_triton.common.labels import load_labels
    from ssd_triton.detector.device import choose_device
    from ssd_triton.training.default_weights import WeightsMaker, WeightsPlan
    from ssd_triton.training.examples import Source
    from ssd_triton.training.initial_network import InitialWeights

    labels = load_labels(config.labels_path)
    checkpoint = args.checkpoint or (None if args.backbone_weights else config.weights_path)
    other = args.compare_backbone_weights, args.compare_checkpoint
    plan = WeightsPlan(
        photographs=[Source(*one) for one in photographs],
        validation=Source(*validation),
        initial=InitialWeights(config.backbone, args.backbone_weights, checkpoint),
        other=InitialWeights(config.backbone, *other) if any(other) else None,
        long=_recipe(args, "photographs"),
        fine=_recipe(args, "fine_tune"),
        real_share=args.real_share,
        taught=not args.learn_annotations,
        drive=args.drive,
        rendered=(args.rendered[0], args.rendered[1]),
        processes=args.processes,
        criteria=criteria_of(args, config),
        shares=args.shares,
        max_loss=args.max_loss,
        shifts=shifts_of(args, labels),
        notes=args.data_note,
    )
    devices = choose_device(args.device), choose_device(args.compare_device or args.device)
    print(WeightsMaker(plan, config, labels, args.output, devices).make())
    print(f"\n{relative_to_cwd(args.output / 'chosen')}: weights.safetensors, for weights_path, and its model card")
    return 0


def _recipe(args: argparse.Namespace, option: str) -> TrainingConfig:
    """Return the settings of a training; its recipe overrides configuration files, and flags override the recipe."""
    flags = {"training.steps": getattr(args, f"{option}_steps"), "training.batch": args.batch}
    given = dotted_layer("flags", ((key, value) for key, value in flags.items() if value is not None))
    return merge([*with_file(args.layers, getattr(args, f"{option}_recipe")), given]).training
