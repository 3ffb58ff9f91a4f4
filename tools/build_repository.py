"""Build every artefact that the model repository needs, and only what is out of date."""

from __future__ import annotations

import argparse
from pathlib import Path

from ssd_triton.commands import runner
from ssd_triton.config import Config


def add_arguments(parser: argparse.ArgumentParser, config: Config) -> None:
    """Options of this command."""
    parser.add_argument("--weights-path", type=Path, default=config.weights_path, help="weights, .pt or .safetensors")
    parser.add_argument("--model-repository", type=Path, default=config.model_repository, help="folder")
    parser.add_argument(
        "--labels", type=Path, metavar="FILE", help="classes of the weights, one a line, background first (labels_path)"
    )
    parser.add_argument("--images", type=Path, help="images for the checks after an export (a bundled photograph)")
    parser.add_argument(
        "--variant", nargs="+", default=[], metavar="NAME", help="of the detector; all when none is named"
    )
    parser.add_argument("--force", action="store_true", help="build all, current or not")


def main() -> int:
    """Build, one line an artefact."""
    args, config = runner.parse(
        str(__doc__),
        "python tools/build_repository.py --weights-path weights/mine.safetensors",
        add_arguments,
    )
    # The import brings PyTorch: --help and usage errors answer without it.
    from ssd_triton.serving.repository.build import ensure_built

    config = config.model_copy(
        update={
            "weights_path": args.weights_path.resolve(),
            "model_repository": args.model_repository.resolve(),
            "labels_path": (args.labels or config.labels_path).resolve(),
        }
    )
    ensure_built(
        config,
        lambda line: print(line, flush=True),
        force=args.force,
        images=args.images,
        only=args.variant,
        relabel=args.labels is not None,
    )
    return 0


if __name__ == "__main__":
    runner.run(main)
