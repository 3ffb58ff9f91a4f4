"""Build the artefacts of the model repository that are missing or out of date."""

from __future__ import annotations

import argparse
from pathlib import Path

from ssd_triton.commands.options import add_option, given
from ssd_triton.config import Config

EXAMPLE = "ssd-triton build --weights-path weights/mine.safetensors"


def add_arguments(parser: argparse.ArgumentParser, config: Config) -> None:
    """Add the options of this verb."""
    add_option(parser, config, "--weights-path", "weights_path")
    add_option(parser, config, "--model-repository", "model_repository")
    add_option(
        parser,
        config,
        "--labels",
        "labels_path",
        description="classes of the weights, one a line, background first; every configuration is rewritten for them",
    )
    parser.add_argument(
        "--images", type=Path, help="images for the checks after an export; by default a bundled photograph"
    )
    parser.add_argument(
        "--variant", nargs="+", default=[], metavar="NAME", help="variants of the detector; by default all of them"
    )
    parser.add_argument("--force", action="store_true", help="build all, current or not")


def run(args: argparse.Namespace, config: Config) -> int:
    """Build, and print a line for each artefact."""
    from ssd_triton.serving.repository.build import ensure_built

    ensure_built(
        config,
        lambda line: print(line, flush=True),
        force=args.force,
        images=args.images,
        only=args.variant,
        relabel=bool(given(args, ["labels_path"])),
    )
    return 0
