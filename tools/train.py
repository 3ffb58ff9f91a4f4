"""Train or fine-tune SSD300 on data sets in COCO's format.

Begins with an ImageNet backbone or a checkpoint, and writes into --output: weights.safetensors (FP16, for
weights_path), MODEL_CARD.md, labels.txt, log.csv, validations.csv, curves.png, augmented.png, and last.pt for
--resume. The recipe lies in config.yml under 'training'; --recipe and options override it.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ssd_triton.commands import runner
from ssd_triton.common.errors import UserError
from ssd_triton.common.files import relative_to_cwd
from ssd_triton.config import BACKBONE_NAMES, Config
from ssd_triton.evaluation.options import positive
from ssd_triton.training.options import add_recipe_arguments, add_set_argument, recipe_of, sets_of

if TYPE_CHECKING:
    from ssd_triton.training.history import Record


def add_arguments(parser: argparse.ArgumentParser, config: Config) -> None:
    """Options of this command."""
    add_set_argument(
        parser,
        "--data",
        "a folder and a COCO file to train on, and a WEIGHT: this set's part of all draws relative to the other sets, "
        "its number of images by default; repeat for more sets",
    )
    add_set_argument(
        parser,
        "--taught-data",
        "the same, but what --checkpoint sees in the images is trained on instead of the annotations, so that it is "
        "not forgotten",
    )
    add_set_argument(
        parser, "--validation", "the same to choose the best snapshot by its AP; its WEIGHT is 1 by default"
    )
    parser.add_argument(
        "--backbone-weights", type=Path, metavar="FILE", help="ImageNet ResNet: .npz, .safetensors, .pt"
    )
    parser.add_argument("--checkpoint", type=Path, metavar="FILE", help="a whole network to fine-tune")
    parser.add_argument("--new-heads", action="store_true", help="begin the checkpoint's class heads anew")
    parser.add_argument("--backbone", choices=BACKBONE_NAMES, default=config.backbone, help="depth of the network")
    parser.add_argument("--labels-path", type=Path, default=config.labels_path, metavar="FILE", help="class names")
    parser.add_argument("--classes", nargs="+", default=[], metavar="NAME", help="train these of the labels only")
    parser.add_argument(
        "--name-map",
        nargs="+",
        default=[],
        metavar="NAME=LABEL",
        help="names of the data that the labels call otherwise, beyond coco.name_map; NAME= leaves a category out",
    )
    parser.add_argument(
        "--output", type=Path, default=config.training.output, metavar="FOLDER", help="of everything written"
    )
    add_recipe_arguments(parser, config)
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, ...; auto takes a GPU where there is one")
    parser.add_argument("--resume", action="store_true", help="go on from the last snapshot in --output")
    parser.add_argument("--stop-after", type=positive, metavar="STEP", help="stop after this step, to be resumed")
    parser.add_argument("--skip-bad", action="store_true", help="leave out images that are missing or damaged")
    parser.add_argument("--data-note", action="append", default=[], metavar="TEXT", help="a line of the model card")


def main() -> int:
    """Train, and print where the best weights are."""
    args, config = runner.parse(
        str(__doc__),
        "python tools/train.py --data coco/train2017 coco/annotations/instances_train2017.json "
        "--validation coco/val2017 coco/annotations/instances_val2017.json --backbone-weights resnet50.npz",
        add_arguments,
    )
    if not args.data and not args.taught_data:
        raise UserError("got nothing to train on: give --data IMAGES ANNOTATIONS")
    # What is mistyped is said before PyTorch is imported, which takes seconds.
    training, validation = sets_of("--data", args.data), sets_of("--validation", args.validation)
    taught = sets_of("--taught-data", args.taught_data)
    name_map = {**config.coco.name_map, **_name_map(args.name_map)}
    from ssd_triton.common.labels import load_labels
    from ssd_triton.detector.device import choose_device
    from ssd_triton.training.class_map import ClassMap, choose_labels
    from ssd_triton.training.examples import Source
    from ssd_triton.training.initial_network import InitialWeights
    from ssd_triton.training.train import WEIGHTS, TrainingRequest, train

    labels = load_labels(args.labels_path)
    request = TrainingRequest(
        training=[*(Source(*values) for values in training), *(Source(*values, taught=True) for values in taught)],
        validation=[Source(*values) for values in validation],
        classes=ClassMap(choose_labels(labels, args.classes), labels, name_map),
        initial=InitialWeights(args.backbone, args.backbone_weights, args.checkpoint, args.new_heads),
        skip_bad=args.skip_bad,
        notes=args.data_note,
    )
    device = choose_device(args.device)
    record = train(request, recipe_of(args, config), device, resume=args.resume, stop_after=args.stop_after)
    print(_summary(args.output / WEIGHTS, record))
    return 0


def _name_map(pairs: list[str]) -> dict[str, str]:
    malformed = [pair for pair in pairs if "=" not in pair]
    if malformed:
        raise UserError(f"--name-map: got '{malformed[0]}', expected NAME=LABEL")
    return dict(pair.split("=", 1) for pair in pairs)


def _summary(weights: Path, record: Record) -> str:
    if not weights.exists():
        return f"{record.step} steps done and no weights chosen yet; go on with --resume"
    score = "" if record.best_score is None else f", AP {record.best_score:.4f} in validation"
    return f"{relative_to_cwd(weights)}: step {record.best_step} of {record.step}{score}; model card beside it"


if __name__ == "__main__":
    runner.run(main)
