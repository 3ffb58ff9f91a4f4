"""Make weights that see photographs and rendered traffic alike, in one go.

Draws rendered traffic, fine-tunes a checkpoint on photographs and rendered traffic, averages both networks with several
shares, and keeps the best average that is as good on photographs as the checkpoint. With --backbone-weights, a whole
training from an ImageNet backbone is made too, to compare. Everything lies in --output; --output/chosen has the best
weights with their model card, figures and pictures. After an interruption, the same command resumes.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from ssd_triton.commands.options import FRACTION, POSITIVE, SHARE, Typed
from ssd_triton.commands.shared import add_criteria_options, add_device_option, add_output_option, criteria_of, sets_of
from ssd_triton.common.cores import usable_cores
from ssd_triton.common.files import ROOT, relative_to_cwd
from ssd_triton.config import Config
from ssd_triton.config.layers import dotted_layer, merge, with_file

if TYPE_CHECKING:
    from ssd_triton.training.default_weights import Branch
    from ssd_triton.training.initial_network import InitialWeights

EXAMPLE = """ssd-triton default-weights --photographs coco/train coco/instances_train.json \\
      --validation coco/val coco/instances_val.json --backbone-weights resnet50.npz --output reports/default_weights"""
_SET = ("IMAGES", "ANNOTATIONS")


def add_arguments(parser: argparse.ArgumentParser, config: Config) -> None:
    """Options of this verb."""
    parser.add_argument("--photographs", nargs=2, required=True, metavar=_SET, help="photographs to train on")
    parser.add_argument("--validation", nargs=2, required=True, metavar=_SET, help="photographs to choose by")
    parser.add_argument(
        "--checkpoint", type=Path, default=config.weights_path, help="checkpoint to fine-tune and to average with"
    )
    parser.add_argument("--backbone-weights", type=Path, help="ImageNet backbone for a whole training; by default none")
    parser.add_argument("--drive", type=Path, help="images without annotations, to look at")
    add_output_option(parser, "reports/default_weights")
    parser.add_argument(
        "--rendered",
        type=POSITIVE,
        nargs=2,
        default=(13000, 200),
        metavar=("TRAIN", "VAL"),
        help="numbers of images to draw",
    )
    parser.add_argument("--processes", type=POSITIVE, default=usable_cores(), help="number of processes that draw")
    parser.add_argument(
        "--learn-annotations",
        action="store_true",
        help="fine-tune on the photographs' annotations, not on what the checkpoint sees in them",
    )
    parser.add_argument(
        "--real-shares",
        type=SHARE,
        nargs=2,
        default=(0.4, 0.8),
        metavar=("FINE", "WHOLE"),
        help="part of the draws that are photographs, in fine-tuning and in the whole training",
    )
    for name, recipe in (("fine-tune", "fine_tune"), ("whole", "from_imagenet")):
        default = ROOT / f"recipes/{recipe}.yml"
        parser.add_argument(
            f"--{name}-recipe", type=Path, default=default, metavar="FILE", help="settings of that training"
        )
        parser.add_argument(f"--{name}-steps", type=POSITIVE, metavar="N", help="steps, instead of the recipe's")
    parser.add_argument(
        "--batch", type=Typed(Annotated[int, Field(ge=2)]), help="images in a step, instead of the recipes'"
    )
    parser.add_argument(
        "--shares", type=SHARE, nargs="+", default=[0.5, 0.75, 0.9], help="shares of the fine-tuned network to try"
    )
    parser.add_argument("--max-loss", type=FRACTION, default=0.002, help="largest loss of AP on photographs")
    parser.add_argument("--data-note", action="append", default=[], metavar="TEXT", help="line for the model cards")
    add_device_option(parser)
    add_criteria_options(parser, config)


def run(args: argparse.Namespace, config: Config) -> int:
    """Make the weights, and print the figures."""
    [photographs] = sets_of("--photographs", [args.photographs])
    [validation] = sets_of("--validation", [args.validation])
    from ssd_triton.common.labels import load_labels
    from ssd_triton.detector.device import choose_device
    from ssd_triton.training.default_weights import WeightsMaker, WeightsPlan
    from ssd_triton.training.examples import Source
    from ssd_triton.training.initial_network import InitialWeights

    fine, whole = args.real_shares
    fine_tuning = InitialWeights(config.backbone, checkpoint=args.checkpoint)
    imagenet = InitialWeights(config.backbone, backbone_weights=args.backbone_weights)
    plan = WeightsPlan(
        photographs=Source(*photographs),
        validation=Source(*validation),
        checkpoint=args.checkpoint,
        fine_tuning=_branch(args, "fine_tune", "fine_tuned", fine_tuning, fine, taught=not args.learn_annotations),
        whole=_branch(args, "whole", "from_imagenet", imagenet, whole) if args.backbone_weights else None,
        drive=args.drive,
        rendered=(args.rendered[0], args.rendered[1]),
        processes=args.processes,
        criteria=criteria_of(args, config),
        shares=args.shares,
        max_loss=args.max_loss,
        notes=args.data_note,
    )
    maker = WeightsMaker(plan, config, load_labels(config.labels_path), args.output, choose_device(args.device))
    print(maker.make())
    print(f"\n{relative_to_cwd(args.output / 'chosen')}: weights.safetensors, for weights_path, and its model card")
    return 0


def _branch(
    args: argparse.Namespace,
    option: str,
    name: str,
    initial: InitialWeights,
    real_share: float,
    *,
    taught: bool = False,
) -> Branch:
    """One of the trainings; its recipe overrides configuration files, and flags override the recipe."""
    from ssd_triton.training.default_weights import Branch

    flags = {"training.steps": getattr(args, f"{option}_steps"), "training.batch": args.batch}
    given = dotted_layer("flags", ((key, value) for key, value in flags.items() if value is not None))
    settings = merge([*with_file(args.layers, getattr(args, f"{option}_recipe")), given]).training
    return Branch(name, settings, initial, real_share, taught)
