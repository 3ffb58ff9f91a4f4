"""Export a checkpoint to ONNX: the detector, or with --postprocess the post-processing graph.

The detector is compared with PyTorch on identical real images (names, dtypes, dynamic axes, values), the
post-processing with its NumPy reference (ties and images without objects included). A file that fails its check is not
written. tools/build_repository.py does both, into the model repository.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ssd_triton.commands import runner
from ssd_triton.common.files import sha256_of
from ssd_triton.common.labels import load_labels
from ssd_triton.config import BACKBONE_NAMES, Config
from ssd_triton.serving.repository.repository import ModelRepository


def add_arguments(parser: argparse.ArgumentParser, config: Config) -> None:
    """Options of this command."""
    parser.add_argument("output", type=Path, help="the .onnx file to write")
    parser.add_argument("--weights-path", type=Path, default=config.weights_path, help=".pt or .safetensors")
    parser.add_argument("--backbone", choices=BACKBONE_NAMES, default=config.backbone, help="of the weights")
    parser.add_argument("--labels-path", type=Path, default=config.labels_path, help="one class a line")
    parser.add_argument("--images", type=Path, help="folder of images for the check (a bundled photograph)")
    parser.add_argument("--num-images", type=int, choices=range(2, 65), metavar="2..64", default=4, help="of the check")
    parser.add_argument(
        "--postprocess", action="store_true", help="export the post-processing, with the model repository's thresholds"
    )


def main() -> int:
    """Export one file and print what was proven of it."""
    args, config = runner.parse(
        str(__doc__), "python tools/export_onnx.py detector.onnx --images path/to/images", add_arguments
    )
    num_labels = len(load_labels(args.labels_path))
    if args.postprocess:
        from ssd_triton.detector.postprocessing.onnx_graph import export_postprocess

        export_postprocess(args.output, num_labels, ModelRepository(config.model_repository).thresholds)
        print(f"{args.output}: equal to the NumPy reference, sha256 {sha256_of(args.output)}")
        return 0
    from ssd_triton.detector.export.onnx_export import export_detector
    from ssd_triton.detector.export.samples import photographs
    from ssd_triton.detector.network.ssd import ServedDetector
    from ssd_triton.detector.weights.file import WeightsFile

    network = WeightsFile(args.weights_path).load_network(args.backbone, num_labels)
    images = photographs(args.images, args.num_images)
    errors = export_detector(ServedDetector(network).eval(), args.output, images)
    described = ", ".join(f"{name} {error:.1e}" for name, error in errors.items())
    print(
        f"{args.output}: relative error to PyTorch on {len(images)} images: {described}; "
        f"sha256 {sha256_of(args.output)}"
    )
    return 0


if __name__ == "__main__":
    runner.run(main)
