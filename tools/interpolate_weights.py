"""Average two networks of one origin, and keep the average that is best on all sets.

A is a checkpoint whose accuracy on photographs is to be kept, B was fine-tuned from it. Averages by several shares of B
are evaluated; into --output-folder go weights.safetensors (FP16, for weights_path) and MODEL_CARD.md of the best one
that keeps what A reaches, interpolation.md, interpolation.json and interpolation.png.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from ssd_triton.commands import runner
from ssd_triton.common.errors import UserError
from ssd_triton.common.files import relative_to_cwd
from ssd_triton.common.labels import load_labels
from ssd_triton.config import BACKBONE_NAMES, Config
from ssd_triton.evaluation.options import add_criteria_arguments, criteria_of
from ssd_triton.training.options import add_set_argument, sets_of, share

EXAMPLE = """python tools/interpolate_weights.py weights/ssd300_resnet50_demo.safetensors \\
      reports/training/weights.safetensors --output-folder reports/interpolated --shares 0.2 0.4 0.6 0.8 \\
      --validation coco/val coco/instances_val.json \\
      --validation reports/rendered/val/images reports/rendered/val/annotations.json 0.3"""


def add_arguments(parser: argparse.ArgumentParser, config: Config) -> None:
    """Options of this command."""
    parser.add_argument("first", type=Path, metavar="A", help="weights whose accuracy on photographs is to be kept")
    parser.add_argument("second", type=Path, metavar="B", help="weights that were fine-tuned from A")
    parser.add_argument("--output-folder", type=Path, required=True, metavar="FOLDER", help="of everything written")
    parser.add_argument(
        "--shares",
        type=share,
        nargs="+",
        default=[0.2, 0.4, 0.6, 0.8],
        metavar="SHARE",
        help="of B, above 0 and below 1; A and B themselves are evaluated too",
    )
    add_set_argument(
        parser,
        "--validation",
        "a folder and a COCO file to choose by, and a WEIGHT of its AP, 1 by default; repeat for more sets, of which "
        "those of tools/render_dataset.py tell what is seen of rendered traffic too",
    )
    parser.add_argument(
        "--also", type=Path, nargs="+", default=[], metavar="FILE", help="weights to evaluate, not to average"
    )
    parser.add_argument(
        "--max-loss", type=float, default=0.002, metavar="AP", help="may be lost against A on each set of photographs"
    )
    parser.add_argument("--choose", type=share, metavar="SHARE", help="keep this one, whatever the figures")
    parser.add_argument(
        "--shift",
        type=_shift,
        nargs="+",
        default=[],
        metavar="CLASS=LOGIT",
        help="added to logits of a class in all averages, which moves where a score of 0.5 lies; 'car=-0.3' asks for "
        "more before it calls something a car",
    )
    parser.add_argument("--backbone", choices=BACKBONE_NAMES, default=config.backbone, help="depth of the network")
    parser.add_argument("--labels-path", type=Path, default=config.labels_path, metavar="FILE", help="class names")
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, ...; auto takes a GPU where there is one")
    add_criteria_arguments(parser, config)


def _shift(text: str) -> tuple[str, float]:
    name, _, logit = text.rpartition("=")
    try:
        value = float(logit)
    except ValueError:
        value = float("nan")
    if not name or not -10 <= value <= 10:
        raise argparse.ArgumentTypeError(f"got '{text}', expected CLASS=LOGIT with a logit of -10 to 10")
    return name, value


def _by_id(shifts: Sequence[tuple[str, float]], labels: Sequence[str]) -> dict[int, float]:
    unknown = [name for name, _ in shifts if name not in labels]
    if unknown:
        raise UserError(f"--shift: got the class '{unknown[0]}', expected names of --labels-path")
    return {labels.index(name): logit for name, logit in shifts}


def main() -> int:
    """Average, evaluate, choose, and print the table."""
    args, config = runner.parse(str(__doc__), EXAMPLE, add_arguments)
    validation = sets_of("--validation", args.validation)
    from ssd_triton.detector.device import choose_device
    from ssd_triton.training.class_map import ClassMap
    from ssd_triton.training.examples import Source
    from ssd_triton.training.interpolate import Mixture, interpolate
    from ssd_triton.training.interpolation_report import candidates_table

    labels = load_labels(args.labels_path)
    mixture = Mixture(
        first=args.first,
        second=args.second,
        shares=args.shares,
        others=args.also,
        validation=[Source(*values) for values in validation],
        classes=ClassMap(labels, labels, config.coco.name_map),
        backbone=args.backbone,
        criteria=criteria_of(args, config),
        max_loss=args.max_loss,
        chosen_share=args.choose,
        shifts=_by_id(args.shift, labels),
    )
    outcome = interpolate(mixture, args.output_folder, choose_device(args.device))
    print(candidates_table(outcome).markdown())
    print(f"{relative_to_cwd(args.output_folder)}: {outcome.chosen.name}; model card and plot beside the weights")
    return 0


if __name__ == "__main__":
    runner.run(main)
