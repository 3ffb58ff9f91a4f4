"""Quantise the detector to INT8 (Q/DQ), and make the measurements for it.

There are three steps, each of which can run alone. --calibrate measures the ranges of activations on training images.
--sensitivity prints the error that quantising each layer causes, and chooses the layers that stay in FP32: those whose
quantisation alone changes the outputs by more than --max-layer-error, and then as many of the next ones as the accuracy
gate (COCO AP) requires. Both steps write the ranges file. --output builds an INT8 file from it; 'ssd-triton build' does
that in the model repository.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from ssd_triton.commands.options import add_option
from ssd_triton.common.errors import UserError
from ssd_triton.common.files import relative_to_cwd, sha256_of
from ssd_triton.config import Config

if TYPE_CHECKING:
    from ssd_triton.config.artefacts import QuantizationConfig
    from ssd_triton.evaluation.sensitivity import EvaluationImages

EXAMPLE = """ssd-triton quantize --calibrate --sensitivity --images coco/train2017 --output int8.onnx \\
      --evaluation-images coco/val2017 --annotations coco/annotations/instances_val2017.json"""
_SENSITIVITY_IMAGES = 4
_PROVIDERS = ("OpenVINOExecutionProvider", "CPUExecutionProvider")


def add_arguments(parser: argparse.ArgumentParser, config: Config) -> None:
    """Add the options of this verb."""
    parser.add_argument("--calibrate", action="store_true", help="measure the ranges and write them")
    parser.add_argument("--sensitivity", action="store_true", help="print the table, choose and write the exclusion")
    parser.add_argument("--output", type=Path, help="INT8 .onnx file to write")
    add_option(parser, config, "--images", "quantization.images")
    add_option(parser, config, "--method", "quantization.method")
    add_option(parser, config, "--weight-bits", "quantization.weight_bits")
    add_option(parser, config, "--num-images", "quantization.num_images")
    add_option(parser, config, "--evaluation-images", "quantization.evaluation_images")
    add_option(parser, config, "--annotations", "quantization.evaluation_annotations")
    add_option(parser, config, "--num-evaluation-images", "quantization.num_evaluation_images")
    add_option(parser, config, "--max-ap-loss", "quantization.max_ap_loss")
    add_option(parser, config, "--max-layer-error", "quantization.max_layer_error")
    parser.add_argument(
        "--provider", choices=_PROVIDERS, default=_PROVIDERS[0], help="execution provider that runs FP32 and INT8"
    )
    parser.add_argument("--ranges", type=Path, help="ranges file; by default NAME.calibration.json beside the weights")
    add_option(parser, config, "--weights-path", "weights_path")
    add_option(parser, config, "--backbone", "backbone")


def run(args: argparse.Namespace, config: Config) -> int:
    """Run the chosen steps in the order of their dependencies."""
    if not (args.calibrate or args.sensitivity or args.output):
        raise UserError("nothing to do: give --calibrate, --sensitivity or --output FILE")
    settings = config.quantization
    if args.calibrate or args.sensitivity:
        _training_images(settings)
    if args.sensitivity:
        _evaluation_files(settings)
    from ssd_triton.detector.quantization.ranges import ranges_path

    ranges_file = args.ranges or ranges_path(config.weights_path)
    _check(args, config, ranges_file)
    with tempfile.TemporaryDirectory() as folder:
        fp32 = _export_fp32(config, Path(folder))
        if args.calibrate:
            _calibrate(config, fp32, ranges_file)
        if args.sensitivity:
            _sensitivity(config, fp32, ranges_file, args.provider)
        if args.output is not None:
            _build(config, fp32, ranges_file, args.output)
    return 0


def _check(args: argparse.Namespace, config: Config, ranges_file: Path) -> None:
    """Check everything that a step needs before the first one starts its long work."""
    from ssd_triton.detector.quantization.ranges import load_ranges
    from ssd_triton.detector.weights.file import WeightsFile

    settings = config.quantization
    if not args.calibrate:
        load_ranges(ranges_file, WeightsFile(config.weights_path))
    if not (args.calibrate or args.sensitivity):
        return
    from ssd_triton.detector.quantization.calibration import load_images
    from ssd_triton.evaluation.sensitivity import check_evaluation

    if args.sensitivity:
        check_evaluation(_evaluation_images(settings))
    num_images = settings.num_images if args.calibrate else _SENSITIVITY_IMAGES
    load_images(_training_images(settings), num_images, _evaluation(settings))


def _evaluation(settings: QuantizationConfig) -> list[Path]:
    found = [path for path in (settings.evaluation_images, settings.evaluation_annotations) if path is not None]
    if not found:
        logging.getLogger(__name__).warning(
            "warning: without --evaluation-images or --annotations nobody checks that these are training images only"
        )
    return found


def _training_images(settings: QuantizationConfig) -> Path:
    if settings.images is None:
        raise UserError("got no training images: give --images FOLDER, or set quantization.images")
    return settings.images


def _evaluation_files(settings: QuantizationConfig) -> tuple[Path, Path]:
    if settings.evaluation_images is None or settings.evaluation_annotations is None:
        raise UserError("--sensitivity measures AP: give --evaluation-images FOLDER and --annotations FILE too")
    return settings.evaluation_images, settings.evaluation_annotations


def _evaluation_images(settings: QuantizationConfig) -> EvaluationImages:
    from ssd_triton.evaluation.sensitivity import EvaluationImages

    return EvaluationImages(*_evaluation_files(settings), settings.num_evaluation_images)


def _export_fp32(config: Config, folder: Path) -> Path:
    """Export the weights again, since the file in the model repository may be of other weights."""
    from ssd_triton.common.labels import load_labels
    from ssd_triton.detector.export.onnx_export import export_detector
    from ssd_triton.detector.export.samples import photographs
    from ssd_triton.detector.network.ssd import ServedDetector
    from ssd_triton.detector.weights.file import WeightsFile

    network = WeightsFile(config.weights_path).load_network(config.backbone, len(load_labels(config.labels_path)))
    path = folder / "fp32.onnx"
    export_detector(ServedDetector(network).eval(), path, photographs(None, 2))
    return path


def _calibrate(config: Config, fp32: Path, ranges_file: Path) -> None:
    import onnx

    from ssd_triton.detector.quantization.calibration import calibrate, load_images
    from ssd_triton.detector.quantization.quantize import activations
    from ssd_triton.detector.quantization.ranges import save_ranges
    from ssd_triton.detector.weights.file import WeightsFile

    settings = config.quantization
    images = load_images(_training_images(settings), settings.num_images, _evaluation(settings))
    tensors = activations(onnx.load(fp32))
    weights = WeightsFile(config.weights_path)
    ranges = calibrate(fp32, tensors, images, settings.method, weights=weights, weight_bits=settings.weight_bits)
    save_ranges(ranges, ranges_file)
    print(
        f"{relative_to_cwd(ranges_file)}: ranges of {len(tensors)} tensors, {settings.method}, "
        f"{settings.num_images} images"
    )


def _sensitivity(config: Config, fp32: Path, ranges_file: Path, provider: str) -> None:
    from ssd_triton.detector.quantization.calibration import load_images
    from ssd_triton.detector.quantization.ranges import load_ranges, save_ranges
    from ssd_triton.detector.weights.file import WeightsFile
    from ssd_triton.evaluation.sensitivity import layer_errors, smallest_exclusion

    settings = config.quantization
    ranges = load_ranges(ranges_file, WeightsFile(config.weights_path))
    images = load_images(_training_images(settings), _SENSITIVITY_IMAGES, _evaluation(settings))
    ranked = layer_errors(fp32, ranges, images.pixels, provider)
    width = max(len(error.layer) for error in ranked)
    print(f"{'quantised alone':{width}}  loc error  conf error")
    for error in ranked:
        print(f"{error.layer:{width}}  {error.loc:9.2e}  {error.conf:10.2e}")
    chosen = smallest_exclusion(
        fp32,
        ranges,
        ranked,
        _evaluation_images(settings),
        max_ap_loss=settings.max_ap_loss,
        max_layer_error=settings.max_layer_error,
        provider=provider,
    )
    save_ranges(chosen, ranges_file)
    if chosen.gate is not None:
        gate = chosen.gate
        print(
            f"{relative_to_cwd(ranges_file)}: AP {gate.ap_int8:.4f} in INT8, {gate.ap_fp32:.4f} in FP32 on "
            f"{gate.num_images} images; layers in FP32: {', '.join(chosen.exclude) or 'none'}"
        )


def _build(config: Config, fp32: Path, ranges_file: Path, output: Path) -> None:
    from ssd_triton.detector.export.samples import photographs
    from ssd_triton.detector.quantization.quantize import export_int8
    from ssd_triton.detector.quantization.ranges import load_ranges
    from ssd_triton.detector.weights.file import WeightsFile

    ranges = load_ranges(ranges_file, WeightsFile(config.weights_path))
    images_rgb = photographs(config.quantization.images, 4)
    errors = export_int8(fp32, ranges, output, exclude=ranges.exclude, images_rgb=images_rgb)
    described = ", ".join(f"{name} {error:.1e}" for name, error in errors.items())
    print(f"{output}: relative error to FP32: {described}; sha256 {sha256_of(output)}")
