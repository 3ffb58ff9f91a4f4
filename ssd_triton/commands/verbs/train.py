"""Train or fine-tune SSD300 on data sets in COCO's format.

Starts from an ImageNet backbone or a checkpoint, and writes into --output: weights.safetensors (FP16, for
weights_path), MODEL_CARD.md, labels.txt, log.csv, validations.csv, curves.png, augmented.png, and last.pt for
--resume. The recipe is the section 'training' of the configuration; recipes/ has others, for --config.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ssd_triton.commands.options import POSITIVE, add_option, name_and_value
from ssd_triton.commands.shared import add_device_option, add_set_option, sets_of
from ssd_triton.common.errors import UserError
from ssd_triton.common.files import relative_to_cwd
from ssd_triton.config import Config

if TYPE_CHECKING:
    from ssd_triton.training.history import Record

EXAMPLE = """ssd-triton train --data coco/train2017 coco/annotations/instances_train2017.json \\
      --validation coco/val2017 coco/annotations/instances_val2017.json --backbone-weights resnet50.npz"""


def add_arguments(parser: argparse.ArgumentParser, config: Config) -> None:
    """Add the options of this verb."""
    add_set_option(
        parser,
        "--data",
        "folder and COCO file to train on, and a WEIGHT: this set's part of all draws relative to the other sets, by "
        "default its number of images; or one folder that holds images/ and annotations.json, or folders that do; "
        "repeat for more sets",
    )
    add_set_option(
        parser,
        "--taught-data",
        "the same, but trained on what --checkpoint sees in the images instead of annotations, so that it is not "
        "forgotten",
    )
    add_set_option(parser, "--validation", "the same to choose the best snapshot by its AP; its WEIGHT is 1 by default")
    parser.add_argument("--backbone-weights", type=Path, help="ImageNet ResNet: .npz, .safetensors, .pt")
    parser.add_argument("--checkpoint", type=Path, help="whole network to fine-tune")
    parser.add_argument("--new-heads", action="store_true", help="begin the checkpoint's class heads anew")
    add_option(parser, config, "--backbone", "backbone")
    add_option(parser, config, "--labels-path", "labels_path")
    parser.add_argument(
        "--classes", nargs="+", default=[], metavar="NAME", help="classes to train; by default all of the labels"
    )
    parser.add_argument(
        "--name-map",
        nargs="+",
        type=name_and_value,
        default=[],
        metavar="NAME=LABEL",
        help="labels for names of the data, beyond coco.name_map; NAME= leaves a category out",
    )
    add_option(parser, config, "--output", "training.output")
    for name in ("steps", "batch", "seed", "validate_every"):
        add_option(parser, config, f"--{name.replace('_', '-')}", f"training.{name}")
    add_option(parser, config, "--backbone-lr", "training.optimizer.backbone_lr")
    add_option(parser, config, "--head-lr", "training.optimizer.head_lr")
    add_device_option(parser)
    parser.add_argument("--resume", action="store_true", help="resume from the last snapshot in --output")
    parser.add_argument("--stop-after", type=POSITIVE, help="step after which to stop, for --resume")
    parser.add_argument("--skip-bad", action="store_true", help="leave out images that are missing or damaged")
    parser.add_argument("--data-note", action="append", default=[], metavar="TEXT", help="line for the model card")


def run(args: argparse.Namespace, config: Config) -> int:
    """Train, and print where the best weights are."""
    if not args.data and not args.taught_data:
        raise UserError("got nothing to train on: give --data IMAGES ANNOTATIONS")
    # Mistakes in the arguments are reported before PyTorch is imported, which takes seconds.
    training, validation = sets_of("--data", args.data), sets_of("--validation", args.validation)
    taught = sets_of("--taught-data", args.taught_data)
    from ssd_triton.common.labels import load_labels
    from ssd_triton.detector.device import choose_device
    from ssd_triton.training.class_map import ClassMap, choose_labels
    from ssd_triton.training.examples import Source
    from ssd_triton.training.initial_network import InitialWeights
    from ssd_triton.training.train import WEIGHTS, TrainingRequest, train

    labels = load_labels(config.labels_path)
    request = TrainingRequest(
        training=[*(Source(*values) for values in training), *(Source(*values, taught=True) for values in taught)],
        validation=[Source(*values) for values in validation],
        classes=ClassMap(choose_labels(labels, args.classes), labels, {**config.coco.name_map, **dict(args.name_map)}),
        initial=InitialWeights(config.backbone, args.backbone_weights, args.checkpoint, args.new_heads),
        skip_bad=args.skip_bad,
        notes=args.data_note,
    )
    device = choose_device(args.device)
    record = train(request, config.training, device, resume=args.resume, stop_after=args.stop_after)
    print(_summary(config.training.output / WEIGHTS, record))
    return 0


def _summary(weights: Path, record: Record) -> str:
    if not weights.exists():
        return f"{record.step} steps done and no weights chosen yet; --resume continues"
    score = "" if record.best_score is None else f", AP {record.best_score:.4f} in validation"
    return f"{relative_to_cwd(weights)}: step {record.best_step} of {record.step}{score}; model card beside it"
