"""Draw random scenes of the simulated world as a training set in COCO's format."""

from __future__ import annotations

import argparse
from pathlib import Path

from ssd_triton.commands.options import COUNT, POSITIVE
from ssd_triton.common.files import relative_to_cwd
from ssd_triton.config import Config

EXAMPLE = "ssd-triton render-dataset reports/rendered --count 1000 --seed 1"


def add_arguments(parser: argparse.ArgumentParser, config: Config) -> None:
    """Add the options of this verb."""
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="folder for images/ and annotations.json")
    parser.add_argument("--count", type=POSITIVE, default=100, help="number of images")
    parser.add_argument("--seed", type=COUNT, default=0, help="seed of the scenes")
    parser.add_argument(
        "--size",
        type=POSITIVE,
        nargs=2,
        action="append",
        metavar=("WIDTH", "HEIGHT"),
        help="size of the images, pixels; repeated, worlds of eight images take turns; by default 640 480",
    )
    parser.add_argument("--processes", type=POSITIVE, default=1, help="number of processes that draw")


def run(args: argparse.Namespace, config: Config) -> int:
    """Draw the set."""
    from ssd_triton.common.labels import load_labels
    from ssd_triton.simulation.dataset import write_dataset

    labels = load_labels(config.labels_path)
    sizes_px = [(width, height) for width, height in args.size or [(640, 480)]]
    written = write_dataset(args.folder, args.count, args.seed, sizes_px, labels, processes=args.processes)
    print(f"{written.images} images with {written.boxes} boxes: {relative_to_cwd(written.annotations)}")
    return 0
