"""Compare every variant that runs here with PyTorch FP32 on identical real images: raw outputs and final detections.

Exit code 1 when one is beyond the tolerances in config.yml.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ssd_triton import cli
from ssd_triton.config import Config
from ssd_triton.labels import load_labels


def add_arguments(parser: argparse.ArgumentParser, config: Config) -> None:
    """Options of this command."""
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, ...; auto takes a GPU where there is one")
    parser.add_argument("--images", type=Path, help="folder of images (views of a bundled photograph)")
    parser.add_argument("--num-images", type=int, default=8, help="how many")
    parser.add_argument("--weights-path", type=Path, default=config.weights_path, help=".pt or .safetensors")


def main() -> int:
    """Compare and print a table."""
    args, config = cli.parse(str(__doc__), "python tools/check_parity.py --images path/to/images", add_arguments)
    from ssd_triton.benchmark.candidates import runnable_candidates
    from ssd_triton.device import choose_device
    from ssd_triton.export.samples import photographs
    from ssd_triton.network.ssd import ServedDetector
    from ssd_triton.network.weights import load_network
    from ssd_triton.parity import check_parity, table

    network = load_network(args.weights_path, config.backbone, len(load_labels(config.labels_path)))
    detector = ServedDetector(network).eval()
    candidates = runnable_candidates(config, detector, choose_device(args.device))
    images = photographs(args.images, args.num_images)
    results = check_parity(detector, candidates, images, config.parity.model_dump())
    print(table(results))
    return 0 if all(one.passed for one in results) else 1


if __name__ == "__main__":
    cli.run(main)
