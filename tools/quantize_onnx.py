"""Quantise the detector to INT8 (Q/DQ), and measure what that needs.

Three steps, any of them alone: --calibrate measures the ranges of activations on training images; --sensitivity prints
what quantising each layer costs, and leaves in FP32 those that alone move the outputs by more than --max-layer-error,
and as many of the next ones as the accuracy gate (COCO AP) asks for; both go into the ranges file. --output
builds an INT8 file from it; tools/build_repository.py does that in the repository.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from ssd_triton.commands import runner
from ssd_triton.common.errors import UserError
from ssd_triton.common.files import relative_to_cwd, sha256_of
from ssd_triton.config import BACKBONE_NAMES, CALIBRATION_METHODS, Config

if TYPE_CHECKING:
    from ssd_triton.evaluation.sensitivity import EvaluationImages

_SENSITIVITY_IMAGES = 4
_PROVIDERS = ("OpenVINOExecutionProvider", "CPUExecutionProvider")


def add_arguments(parser: argparse.ArgumentParser, config: Config) -> None:
    """Options of this command."""
    settings = config.quantization
    parser.add_argument("--calibrate", action="store_true", help="measure the ranges and write them")
    parser.add_argument("--sensitivity", action="store_true", help="print the table, choose and write the exclusion")
    parser.add_argument("--output", type=Path, metavar="FILE", help="the INT8 .onnx file to write")
    parser.add_argument("--images", type=Path, default=settings.images, metavar="FOLDER", help="training images")
    parser.add_argument("--method", choices=CALIBRATION_METHODS, default=settings.method, help="of calibration")
    parser.add_argument(
        "--weight-bits", type=int, choices=(7, 8), default=settings.weight_bits, help="7 for CPUs without VNNI"
    )
    parser.add_argument(
        "--num-images", type=_positive, default=settings.num_images, metavar="N", help="to calibrate on"
    )
    parser.add_argument(
        "--evaluation-images",
        type=Path,
        default=settings.evaluation_images,
        metavar="FOLDER",
        help="never calibrated on",
    )
    parser.add_argument(
        "--annotations",
        type=Path,
        default=settings.evaluation_annotations,
        metavar="FILE",
        help="COCO, of those images",
    )
    parser.add_argument(
        "--num-evaluation-images",
        type=_positive,
        default=settings.num_evaluation_images,
        metavar="N",
        help="AP is measured on",
    )
    parser.add_argument("--max-ap-loss", type=float, default=settings.max_ap_loss, metavar="AP", help="0 to 1")
    parser.add_argument(
        "--max-layer-error",
        type=float,
        default=settings.max_layer_error,
        metavar="ERROR",
        help="relative L2 error of the raw outputs beyond which a layer stays in FP32",
    )
    parser.add_argument("--provider", choices=_PROVIDERS, default=_PROVIDERS[0], help="runs FP32 and INT8")
    parser.add_argument(
        "--ranges", type=Path, metavar="FILE", help="the ranges file; None is NAME.calibration.json beside the weights"
    )
    parser.add_argument("--weights-path", type=Path, default=config.weights_path, help=".pt or .safetensors")
    parser.add_argument("--backbone", choices=BACKBONE_NAMES, default=config.backbone, help="of the weights")


def main() -> int:
    """Do what was asked for, in the order in which one step needs the other."""
    args, config = runner.parse(
        str(__doc__),
        "python tools/quantize_onnx.py --calibrate --sensitivity --images coco/train2017 "
        "--evaluation-images coco/val2017 --annotations coco/annotations/instances_val2017.json --output int8.onnx",
        add_arguments,
    )
    args.ranges = args.ranges or _ranges_path(args.weights_path)
    _check_usage(args)
    with tempfile.TemporaryDirectory() as folder:
        fp32 = _export_fp32(args, config, Path(folder))
        if args.calibrate:
            _calibrate(args, fp32)
        if args.sensitivity:
            _sensitivity(args, fp32)
        if args.output is not None:
            _build(args, fp32)
    return 0


def _ranges_path(weights_path: Path) -> Path:
    from ssd_triton.detector.quantization.ranges import ranges_path

    return ranges_path(weights_path)


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"got {value}, expected 1 or more")
    return value


def _check_usage(args: argparse.Namespace) -> None:
    """Refuse before the first minute of work what would fail after it; missing options without importing PyTorch."""
    if not (args.calibrate or args.sensitivity or args.output):
        raise UserError("nothing to do: give --calibrate, --sensitivity or --output FILE")
    if (args.calibrate or args.sensitivity) and args.images is None:
        raise UserError("got no training images: give --images FOLDER, or set quantization.images in config.yml")
    if args.sensitivity and (args.evaluation_images is None or args.annotations is None):
        raise UserError("--sensitivity measures AP: give --evaluation-images FOLDER and --annotations FILE too")
    from ssd_triton.detector.quantization.ranges import load_ranges
    from ssd_triton.detector.weights.file import WeightsFile

    if not args.calibrate:
        load_ranges(args.ranges, WeightsFile(args.weights_path))
    if not (args.calibrate or args.sensitivity):
        return
    from ssd_triton.detector.quantization.calibration import load_images
    from ssd_triton.evaluation.sensitivity import check_evaluation

    if args.sensitivity:
        check_evaluation(_evaluation_images(args))
    load_images(args.images, args.num_images if args.calibrate else _SENSITIVITY_IMAGES, _evaluation(args))


def _evaluation(args: argparse.Namespace) -> list[Path]:
    found = [path for path in (args.evaluation_images, args.annotations) if path is not None]
    if not found:
        logging.getLogger(__name__).warning(
            "warning: without --evaluation-images or --annotations nobody checks that these are training images only"
        )
    return found


def _evaluation_images(args: argparse.Namespace) -> EvaluationImages:
    from ssd_triton.evaluation.sensitivity import EvaluationImages

    return EvaluationImages(args.evaluation_images, args.annotations, args.num_evaluation_images)


def _export_fp32(args: argparse.Namespace, config: Config, folder: Path) -> Path:
    """Export anew: ranges and layers are those of these weights, whatever the model repository holds."""
    from ssd_triton.common.labels import load_labels
    from ssd_triton.detector.export.onnx_export import export_detector
    from ssd_triton.detector.export.samples import photographs
    from ssd_triton.detector.network.ssd import ServedDetector
    from ssd_triton.detector.weights.file import WeightsFile

    network = WeightsFile(args.weights_path).load_network(args.backbone, len(load_labels(config.labels_path)))
    path = folder / "fp32.onnx"
    export_detector(ServedDetector(network).eval(), path, photographs(None, 2))
    return path


def _calibrate(args: argparse.Namespace, fp32: Path) -> None:
    import onnx

    from ssd_triton.detector.quantization.calibration import calibrate, load_images
    from ssd_triton.detector.quantization.quantize import activations
    from ssd_triton.detector.quantization.ranges import save_ranges
    from ssd_triton.detector.weights.file import WeightsFile

    images = load_images(args.images, args.num_images, _evaluation(args))
    tensors = activations(onnx.load(fp32))
    weights = WeightsFile(args.weights_path)
    ranges = calibrate(fp32, tensors, images, args.method, weights=weights, weight_bits=args.weight_bits)
    save_ranges(ranges, args.ranges)
    print(f"{relative_to_cwd(args.ranges)}: ranges of {len(tensors)} tensors, {args.method}, {args.num_images} images")


def _sensitivity(args: argparse.Namespace, fp32: Path) -> None:
    from ssd_triton.detector.quantization.calibration import load_images
    from ssd_triton.detector.quantization.ranges import load_ranges, save_ranges
    from ssd_triton.detector.weights.file import WeightsFile
    from ssd_triton.evaluation.sensitivity import layer_errors, smallest_exclusion

    ranges = load_ranges(args.ranges, WeightsFile(args.weights_path))
    images = load_images(args.images, _SENSITIVITY_IMAGES, _evaluation(args))
    ranked = layer_errors(fp32, ranges, images.pixels, args.provider)
    width = max(len(error.layer) for error in ranked)
    print(f"{'quantised alone':{width}}  loc error  conf error")
    for error in ranked:
        print(f"{error.layer:{width}}  {error.loc:9.2e}  {error.conf:10.2e}")
    evaluation = _evaluation_images(args)
    chosen = smallest_exclusion(
        fp32,
        ranges,
        ranked,
        evaluation,
        max_ap_loss=args.max_ap_loss,
        max_layer_error=args.max_layer_error,
        provider=args.provider,
    )
    save_ranges(chosen, args.ranges)
    if chosen.gate is not None:
        gate = chosen.gate
        print(
            f"{relative_to_cwd(args.ranges)}: AP {gate.ap_int8:.4f} in INT8, {gate.ap_fp32:.4f} in FP32 on "
            f"{gate.num_images} images; layers in FP32: {', '.join(chosen.exclude) or 'none'}"
        )


def _build(args: argparse.Namespace, fp32: Path) -> None:
    from ssd_triton.detector.export.samples import photographs
    from ssd_triton.detector.quantization.quantize import export_int8
    from ssd_triton.detector.quantization.ranges import load_ranges
    from ssd_triton.detector.weights.file import WeightsFile

    ranges = load_ranges(args.ranges, WeightsFile(args.weights_path))
    errors = export_int8(fp32, ranges, args.output, exclude=ranges.exclude, images_rgb=photographs(args.images, 4))
    described = ", ".join(f"{name} {error:.1e}" for name, error in errors.items())
    print(f"{args.output}: relative error to FP32: {described}; sha256 {sha256_of(args.output)}")


if __name__ == "__main__":
    runner.run(main)
