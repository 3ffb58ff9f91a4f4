"""Draw random scenes of the simulated world as a training set in COCO's format."""

from __future__ import annotations

import argparse
from pathlib import Path

from ssd_triton.commands import runner
from ssd_triton.common.files import relative_to_cwd
from ssd_triton.common.labels import load_labels
from ssd_triton.config import Config
from ssd_triton.evaluation.options import positive
from ssd_triton.simulation.dataset import write_dataset

EXAMPLE = "python tools/render_dataset.py reports/rendered --count 1000 --seed 1"


def add_arguments(parser: argparse.ArgumentParser, config: Config) -> None:
    """Options of this command."""
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="gets images/ and annotations.json")
    parser.add_argument("--count", type=int, default=100, help="number of images")
    parser.add_argument("--seed", type=int, default=0, help="another number is another set")
    parser.add_argument(
        "--size",
        type=int,
        nargs=2,
        action="append",
        metavar=("WIDTH", "HEIGHT"),
        help="of the images, pixels; given again, worlds of eight images take turns (default: 640 480)",
    )
    parser.add_argument("--processes", type=positive, default=1, metavar="N", help="that draw at the same time")


def main() -> int:
    """Draw the set."""
    args, config = runner.parse(str(__doc__), EXAMPLE, add_arguments)
    labels = load_labels(config.labels_path)
    sizes_px = [(width, height) for width, height in args.size or [(640, 480)]]
    written = write_dataset(args.folder, args.count, args.seed, sizes_px, labels, processes=args.processes)
    print(f"{written.images} images with {written.boxes} boxes: {relative_to_cwd(written.annotations)}")
    return 0


if __name__ == "__main__":
    runner.run(main)
