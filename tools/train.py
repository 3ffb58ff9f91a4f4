"""Train or fine-tune SSD300 on data sets in COCO's format.

Begins with an ImageNet backbone or a checkpoint, and writes into --output: weights.safetensors (FP16, for
weights_path), MODEL_CARD.md, labels.txt, log.csv, validations.csv, curves.png, augmented.png, and last.pt for
--resume. The recipe lies in config.yml under 'training'.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ssd_triton import cli
from ssd_triton.config import BACKBONE_NAMES, Config
from ssd_triton.errors import UserError
from ssd_triton.files import relative_to_cwd

if TYPE_CHECKING:
    from ssd_triton.training.record import Record

_SET = ("IMAGES", "ANNOTATIONS")


def add_arguments(parser: argparse.ArgumentParser, config: Config) -> None:
    """Options of this command."""
    settings = config.training
    parser.add_argument(
        "--data",
        nargs="+",
        action="append",
        default=[],
        metavar=_SET,
        help="a folder and a COCO file to train on, and a WEIGHT: this set's part of all draws relative to the other "
        "sets, its number of images by default; repeat for more sets",
    )
    parser.add_argument(
        "--validation",
        nargs="+",
        action="append",
        default=[],
        metavar=_SET,
        help="the same to choose the best snapshot by its AP; its WEIGHT is 1 by default",
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
    parser.add_argument("--output", type=Path, default=settings.output, metavar="FOLDER", help="of everything written")
    parser.add_argument("--steps", type=_positive, default=settings.steps, metavar="N", help="of the whole training")
    parser.add_argument("--batch", type=_several, default=settings.batch, metavar="N", help="images in a step")
    parser.add_argument("--seed", type=int, default=settings.seed, metavar="N", help="of all randomness")
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, ...; auto takes a GPU where there is one")
    parser.add_argument("--resume", action="store_true", help="go on from the last snapshot in --output")
    parser.add_argument("--stop-after", type=_positive, metavar="STEP", help="stop after this step, to be resumed")
    parser.add_argument("--skip-bad", action="store_true", help="leave out images that are missing or damaged")
    parser.add_argument("--data-note", action="append", default=[], metavar="TEXT", help="a line of the model card")


def main() -> int:
    """Train, and print where the best weights are."""
    args, config = cli.parse(
        str(__doc__),
        "python tools/train.py --data coco/train2017 coco/annotations/instances_train2017.json "
        "--validation coco/val2017 coco/annotations/instances_val2017.json --backbone-weights resnet50.npz",
        add_arguments,
    )
    if not args.data:
        raise UserError("got nothing to train on: give --data IMAGES ANNOTATIONS")
    # What is mistyped is said before PyTorch is imported, which takes seconds.
    training = [_checked("--data", values) for values in args.data]
    validation = [_checked("--validation", values) for values in args.validation]
    name_map = {**config.coco.name_map, **_name_map(args.name_map)}
    from ssd_triton.device import choose_device
    from ssd_triton.labels import load_labels
    from ssd_triton.training.classes import choose_labels
    from ssd_triton.training.examples import Source
    from ssd_triton.training.run import WEIGHTS, Begin, Request, train

    labels = load_labels(args.labels_path)
    request = Request(
        training=[Source(*values) for values in training],
        validation=[Source(*values) for values in validation],
        labels=choose_labels(labels, args.classes),
        known=labels,
        name_map=name_map,
        begin=Begin(args.backbone, args.backbone_weights, args.checkpoint, args.new_heads),
        skip_bad=args.skip_bad,
        notes=args.data_note,
    )
    changed = {name: getattr(args, name) for name in ("output", "steps", "batch", "seed")}
    settings = config.training.model_copy(update=changed)
    device = choose_device(args.device)
    record = train(request, settings, device, resume=args.resume, stop_after=args.stop_after)
    print(_summary(args.output / WEIGHTS, record))
    return 0


def _positive(text: str, least: int = 1) -> int:
    value = int(text)
    if value < least:
        raise argparse.ArgumentTypeError(f"got {value}, expected {least} or more")
    return value


def _several(text: str) -> int:
    return _positive(text, 2)


def _checked(option: str, values: list[str]) -> tuple[Path, Path, float | None]:
    if len(values) not in (2, 3):
        raise UserError(f"{option}: got {len(values)} values, expected IMAGES ANNOTATIONS and perhaps a WEIGHT")
    if len(values) == 2:
        return Path(values[0]), Path(values[1]), None
    try:
        weight = float(values[2])
    except ValueError:
        weight = 0.0
    if not 0 < weight < float("inf"):
        raise UserError(f"{option}: got the weight '{values[2]}', expected a number above 0")
    return Path(values[0]), Path(values[1]), weight


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
    cli.run(main)
