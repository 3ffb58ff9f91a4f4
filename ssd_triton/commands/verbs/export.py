"""Export the detector of a checkpoint to ONNX, or with --postprocess the post-processing graph.

The detector is compared with PyTorch on the same real images (names, dtypes, dynamic axes, values), the post-processing
with its NumPy reference (including ties and images without objects). A file that fails its check is not written.
'ssd-triton build' exports both into the model repository.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Annotated

from pydantic import Field

from ssd_triton.commands.options import Typed, add_option
from ssd_triton.common.files import sha256_of
from ssd_triton.config import Config

EXAMPLE = "ssd-triton export detector.onnx --images path/to/images"


def add_arguments(parser: argparse.ArgumentParser, config: Config) -> None:
    """Add the options of this verb."""
    parser.add_argument("output", type=Path, metavar="ONNX", help="file to write")
    add_option(parser, config, "--weights-path", "weights_path")
    add_option(parser, config, "--backbone", "backbone")
    add_option(parser, config, "--labels-path", "labels_path")
    parser.add_argument("--images", type=Path, help="images for the check; by default a bundled photograph")
    parser.add_argument(
        "--num-images", type=Typed(Annotated[int, Field(ge=2, le=64)]), default=4, help="number of images for the check"
    )
    parser.add_argument(
        "--postprocess", action="store_true", help="export the post-processing, with the model repository's thresholds"
    )


def run(args: argparse.Namespace, config: Config) -> int:
    """Export one file and print what was checked."""
    from ssd_triton.common.labels import load_labels

    num_labels = len(load_labels(config.labels_path))
    if args.postprocess:
        from ssd_triton.detector.postprocessing.onnx_graph import export_postprocess
        from ssd_triton.serving.repository.repository import ModelRepository

        export_postprocess(args.output, num_labels, ModelRepository(config.model_repository).thresholds)
        print(f"{args.output}: equal to the NumPy reference, sha256 {sha256_of(args.output)}")
        return 0
    from ssd_triton.detector.export.onnx_export import export_detector
    from ssd_triton.detector.export.samples import photographs
    from ssd_triton.detector.network.ssd import ServedDetector
    from ssd_triton.detector.weights.file import WeightsFile

    network = WeightsFile(config.weights_path).load_network(config.backbone, num_labels)
    images = photographs(args.images, args.num_images)
    errors = export_detector(ServedDetector(network).eval(), args.output, images)
    described = ", ".join(f"{name} {error:.1e}" for name, error in errors.items())
    print(
        f"{args.output}: relative error to PyTorch on {len(images)} images: {described}; "
        f"sha256 {sha256_of(args.output)}"
    )
    return 0
