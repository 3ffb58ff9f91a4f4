"""Compare raw outputs and final detections of every variant that runs here with PyTorch FP32, on the same images.

Exit code 1 when a variant exceeds the tolerances of 'parity' in the configuration.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ssd_triton.commands.options import POSITIVE, add_option
from ssd_triton.commands.shared import add_device_option
from ssd_triton.config import Config

EXAMPLE = "ssd-triton parity --images path/to/images"


def add_arguments(parser: argparse.ArgumentParser, config: Config) -> None:
    """Add the options of this verb."""
    add_device_option(parser)
    parser.add_argument("--images", type=Path, help="folder of images; by default views of a bundled photograph")
    parser.add_argument("--num-images", type=POSITIVE, default=8, help="number of images")
    add_option(parser, config, "--weights-path", "weights_path")


def run(args: argparse.Namespace, config: Config) -> int:
    """Compare and print a table."""
    from ssd_triton.common.labels import load_labels
    from ssd_triton.detector.device import choose_device
    from ssd_triton.detector.export.samples import photographs
    from ssd_triton.detector.network.ssd import ServedDetector
    from ssd_triton.detector.weights.file import WeightsFile
    from ssd_triton.evaluation.parity import check_parity, parity_table
    from ssd_triton.serving.runnable import runnable_variants

    network = WeightsFile(config.weights_path).load_network(config.backbone, len(load_labels(config.labels_path)))
    detector = ServedDetector(network).eval()
    variants = runnable_variants(config, detector, choose_device(args.device))
    images = photographs(args.images, args.num_images)
    results = check_parity(detector, variants, images, config.parity.model_dump())
    print(parity_table(results).markdown())
    return 0 if all(one.passed for one in results) else 1
