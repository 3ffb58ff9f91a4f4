"""Make weights that see photographs and rendered traffic alike, in one go.

Draws rendered traffic, fine-tunes a checkpoint on photographs and rendered traffic, averages both networks by several
shares, and keeps the best average that is as good on photographs as the checkpoint. With --backbone-weights, a whole
training from an ImageNet backbone is made too, to compare. Everything lies in --output; --output/chosen has the best
weights with their model card, figures and pictures. What is finished is not done again: after an interruption, give the
same command once more.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ssd_triton.commands import runner
from ssd_triton.common.files import ROOT, relative_to_cwd
from ssd_triton.common.labels import load_labels
from ssd_triton.common.machine import cores
from ssd_triton.config import Config
from ssd_triton.evaluation.options import add_criteria_arguments, criteria_of, positive
from ssd_triton.training.options import sets_of, several, share
from ssd_triton.training.recipe import with_recipe

EXAMPLE = """python tools/train_default_weights.py --photographs coco/train coco/instances_train.json \\
      --validation coco/val coco/instances_val.json --backbone-weights resnet50.npz --output reports/default_weights"""
_SET = ("IMAGES", "ANNOTATIONS")


def add_arguments(parser: argparse.ArgumentParser, config: Config) -> None:
    """Options of this command."""
    parser.add_argument("--photographs", nargs=2, required=True, metavar=_SET, help="to train on")
    parser.add_argument("--validation", nargs=2, required=True, metavar=_SET, help="photographs to choose by")
    parser.add_argument(
        "--checkpoint", type=Path, default=config.weights_path, metavar="FILE", help="to fine-tune and to average with"
    )
    parser.add_argument(
        "--backbone-weights", type=Path, metavar="FILE", help="ImageNet backbone for a whole training; None makes none"
    )
    parser.add_argument("--drive", type=Path, metavar="FOLDER", help="images without annotations, to look at")
    parser.add_argument("--output", type=Path, default=Path("reports/default_weights"), help="folder for everything")
    parser.add_argument(
        "--rendered", type=positive, nargs=2, default=(13000, 200), metavar=("TRAIN", "VAL"), help="images to draw"
    )
    parser.add_argument("--processes", type=positive, default=cores(), metavar="N", help="that draw")
    parser.add_argument(
        "--learn-annotations",
        action="store_true",
        help="fine-tune on the photographs' annotations, not on what the checkpoint sees in them",
    )
    parser.add_argument(
        "--real-shares",
        type=share,
        nargs=2,
        default=(0.4, 0.8),
        metavar=("FINE", "WHOLE"),
        help="part of the draws that are photographs, in fine-tuning and in the whole training",
    )
    for name, recipe in (("fine-tune", "fine_tune"), ("whole", "from_imagenet")):
        default = ROOT / f"recipes/{recipe}.yml"
        parser.add_argument(f"--{name}-recipe", type=Path, default=default, metavar="FILE", help="see tools/train.py")
        parser.add_argument(f"--{name}-steps", type=positive, metavar="N", help="instead of the recipe's")
    parser.add_argument("--batch", type=several, metavar="N", help="images in a step, instead of the recipes'")
    parser.add_argument(
        "--shares", type=share, nargs="+", default=[0.5, 0.75, 0.9], help="of the fine-tuned network, to try"
    )
    parser.add_argument("--max-loss", type=float, default=0.002, metavar="AP", help="may be lost on photographs")
    parser.add_argument("--data-note", action="append", default=[], metavar="TEXT", help="a line of the model cards")
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, ...; auto takes a GPU where there is one")
    add_criteria_arguments(parser, config)


def main() -> int:
    """Make the weights, and print the figures."""
    args, config = runner.parse(str(__doc__), EXAMPLE, add_arguments)
    [photographs] = sets_of("--photographs", [args.photographs])
    [validation] = sets_of("--validation", [args.validation])
    from ssd_triton.detector.device import choose_device
    from ssd_triton.training.default_weights import Branch, WeightsMaker, WeightsPlan
    from ssd_triton.training.examples import Source
    from ssd_triton.training.initial_network import InitialWeights

    def branch(name: str, recipe: Path, steps: int | None, real_share: float, taught: bool, **initial: Any) -> Branch:
        given = {key: value for key, value in (("steps", steps), ("batch", args.batch)) if value is not None}
        settings = with_recipe(config.training, recipe).model_copy(update=given)
        return Branch(name, settings, InitialWeights(config.backbone, **initial), real_share, taught)

    fine, whole = args.real_shares
    plan = WeightsPlan(
        photographs=Source(*photographs),
        validation=Source(*validation),
        checkpoint=args.checkpoint,
        fine_tuning=branch(
            "fine_tuned",
            args.fine_tune_recipe,
            args.fine_tune_steps,
            fine,
            not args.learn_annotations,
            checkpoint=args.checkpoint,
        ),
        whole=branch(
            "from_imagenet", args.whole_recipe, args.whole_steps, whole, False, backbone_weights=args.backbone_weights
        )
        if args.backbone_weights
        else None,
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


if __name__ == "__main__":
    runner.run(main)
