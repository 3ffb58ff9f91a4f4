"""Compare every variant that runs here with PyTorch FP32 on identical real images: raw outputs and final detections.

Exit code 1 when one is beyond the tolerances in config.yml.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ssd_triton.commands import runner
from ssd_triton.common.labels import load_labels
from ssd_triton.config import Config


def add_arguments(parser: argparse.ArgumentParser, config: Config) -> None:
    """Options of this command."""
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, ...; auto takes a GPU where there is one")
    parser.add_argument("--images", type=Path, help="folder of images (views of a bundled photograph)")
    parser.add_argument("--num-images", type=int, default=8, help="how many")
    parser.add_argument("--weights-path", type=Path, default=config.weights_path, help=".pt or .safetensors")


def main() -> int:
    """Compare and print a table."""
    args, config = runner.parse(str(__doc__), "python tools/check_parity.py --images path/to/images", add_arguments)
    from ssd_triton.detector.device import choose_device
    from ssd_triton.detector.export.samples import photographs
    from ssd_triton.detector.network.ssd import ServedDetector
    from ssd_triton.detector.weights.file import WeightsFile
    from ssd_triton.evaluation.parity import check_parity, parity_table
    from ssd_triton.serving.runnable import runnable_variants

    network = WeightsFile(args.weights_path).load_network(config.backbone, len(load_labels(config.labels_path)))
    detector = ServedDetector(network).eval()
    variants = runnable_variants(config, detector, choose_device(args.device))
    images = photographs(args.images, args.num_images)
    results = check_parity(detector, variants, images, config.parity.model_dump())
    print(parity_table(results).markdown())
    return 0 if all(one.passed for one in results) else 1


if __name__ == "__main__":
    runner.run(main)
