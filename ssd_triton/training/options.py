"""The options by which command lines name data sets and change the recipe of a training; without PyTorch."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ssd_triton.common.errors import UserError
from ssd_triton.config import Config, TrainingConfig
from ssd_triton.evaluation.options import positive
from ssd_triton.training.recipe import with_recipe

SetArguments = tuple[Path, Path, float | None]
"""Images, annotations and weight of a :class:`ssd_triton.training.examples.Source`."""
_SET = ("IMAGES", "ANNOTATIONS")


def add_set_argument(parser: argparse.ArgumentParser, option: str, explanation: str) -> None:
    """Add an option that names a data set, and may be given several times."""
    parser.add_argument(option, nargs="+", action="append", default=[], metavar=_SET, help=explanation)


def sets_of(option: str, given: Sequence[Sequence[str]]) -> list[SetArguments]:
    """What was given with an option of :func:`add_set_argument`.

    Raises:
        UserError: It is not a folder, a file and perhaps a weight above 0.
    """
    return [_set_of(option, values) for values in given]


def add_recipe_arguments(parser: argparse.ArgumentParser, config: Config) -> None:
    """Add ``--recipe``, and options of what a recipe holds, whose defaults are the given recipe's."""
    # Read first, as --config is, so that --help shows the defaults that are in force.
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--recipe", type=Path)
    settings = with_recipe(config.training, first.parse_known_args(sys.argv[1:])[0].recipe)
    parser.add_argument(
        "--recipe",
        type=Path,
        metavar="FILE",
        help="YAML with keys of 'training' in the configuration, which it overrides; such as recipes/fine_tune.yml",
    )
    parser.add_argument("--steps", type=positive, default=settings.steps, metavar="N", help="of the whole training")
    parser.add_argument("--batch", type=several, default=settings.batch, metavar="N", help="images in a step")
    parser.add_argument("--seed", type=int, default=settings.seed, metavar="N", help="of all randomness")
    parser.add_argument(
        "--validate-every", type=positive, default=settings.validate_every, metavar="STEPS", help="and keep a snapshot"
    )
    parser.add_argument(
        "--backbone-lr", type=_rate, default=settings.optimizer.backbone_lr, metavar="RATE", help="peak learning rate"
    )
    parser.add_argument(
        "--head-lr", type=_rate, default=settings.optimizer.head_lr, metavar="RATE", help="the same of all other layers"
    )


def recipe_of(args: argparse.Namespace, config: Config) -> TrainingConfig:
    """The configuration's recipe, as the options of :func:`add_recipe_arguments` and ``--output`` change it.

    Raises:
        ConfigError: The recipe's file cannot be read, or holds something else than a recipe.
    """
    settings = with_recipe(config.training, args.recipe)
    rates = {"backbone_lr": args.backbone_lr, "head_lr": args.head_lr}
    changed = {name: getattr(args, name) for name in ("output", "steps", "batch", "seed", "validate_every")}
    return settings.model_copy(update={**changed, "optimizer": settings.optimizer.model_copy(update=rates)})


def several(text: str) -> int:
    """An argument that is a number of images in a step: batch norms need several values a channel."""
    value = int(text)
    if value < 2:
        raise argparse.ArgumentTypeError(f"got {value}, expected 2 or more")
    return value


def share(text: str) -> float:
    """An argument that is a part of a whole, neither nothing nor all of it."""
    value = float(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"got {value}, expected a share above 0 and below 1")
    return value


def _rate(text: str) -> float:
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"got {value}, expected a learning rate above 0, of 1 or less")
    return value


def _set_of(option: str, values: Sequence[str]) -> SetArguments:
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
