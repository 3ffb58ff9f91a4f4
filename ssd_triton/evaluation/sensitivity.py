"""Choice of the layers that stay in FP32, by their errors in INT8 and by COCO AP.

:func:`layer_errors` quantises one layer at a time and compares the outputs with FP32; :func:`smallest_exclusion` leaves
the most sensitive ones in FP32, as few as the accuracy gate allows. AP is computed by :mod:`ssd_triton.evaluation`.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

from ssd_triton.common.arrays import UInt8Array
from ssd_triton.common.detections import Detections
from ssd_triton.common.errors import listing
from ssd_triton.common.files import relative_to_cwd
from ssd_triton.detector.export.compare import relative_error
from ssd_triton.detector.postprocessing.parameters import PostprocessParameters
from ssd_triton.detector.postprocessing.reference import postprocess
from ssd_triton.detector.protocol import preprocess
from ssd_triton.detector.quantization.quantize import layer_names, open_session, quantize
from ssd_triton.detector.quantization.ranges import CalibrationError, CalibrationRanges, GateResult
from ssd_triton.evaluation.dataset import DatasetSource, load_dataset
from ssd_triton.evaluation.errors import EvaluationError
from ssd_triton.evaluation.metrics import check_installed
from ssd_triton.evaluation.offline import evaluate_detector

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LayerError:
    """Errors of the outputs when one layer alone is quantised.

    Attributes:
        layer: Name of the layer.
        loc: Relative L2 error of the output ``loc``.
        conf: Relative L2 error of the output ``conf``.
    """

    layer: str
    loc: float
    conf: float

    @property
    def worst(self) -> float:
        """The larger of the two errors, by which layers are ranked."""
        return max(self.loc, self.conf)


@dataclass(frozen=True)
class EvaluationImages:
    """Images with COCO annotations.

    Attributes:
        folder: Folder of the images.
        annotations: A COCO ``instances_*.json``; category ids map to classes in their sorted order.
        count: Number of images, spread evenly over the sorted ids.
    """

    folder: Path
    annotations: Path
    count: int

    @property
    def source(self) -> DatasetSource:
        """The same for :mod:`ssd_triton.evaluation`."""
        return DatasetSource(self.folder, self.annotations, limit=self.count)


def layer_errors(fp32_onnx: Path, ranges: CalibrationRanges, images_rgb: UInt8Array, provider: str) -> list[LayerError]:
    """Quantise each layer alone, and measure the error of the outputs; the most sensitive layer comes first.

    Args:
        fp32_onnx: The FP32 model.
        ranges: Ranges of its activations.
        images_rgb: UINT8 [N, 300, 300, 3], a few training images.
        provider: ONNX Runtime's execution provider.
    """
    source = onnx.load(fp32_onnx)
    name = relative_to_cwd(fp32_onnx)
    expected = _outputs(open_session(fp32_onnx, provider), images_rgb)
    names = layer_names(source)
    found = []
    for index, layer in enumerate(names):
        others = [other for other in names if other != layer]
        alone = quantize(source, ranges, exclude=others, name=name)
        got = _outputs(open_session(alone.SerializeToString(), provider), images_rgb)
        loc, conf = (relative_error(value, reference) for value, reference in zip(got, expected, strict=True))
        found.append(LayerError(layer, loc, conf))
        _log.info("layer %d of %d: %s: loc %.2e, conf %.2e", index + 1, len(names), layer, loc, conf)
    return sorted(found, key=lambda error: -error.worst)


def smallest_exclusion(
    fp32_onnx: Path,
    ranges: CalibrationRanges,
    ranked: Sequence[LayerError],
    images: EvaluationImages,
    *,
    max_ap_loss: float,
    max_layer_error: float,
    provider: str,
) -> CalibrationRanges:
    """Leave layers with large errors in FP32, then one more layer at a time, until INT8 is accurate enough.

    Layers with large errors stay in FP32 regardless of AP: small shifts of boxes hardly change AP, but do change
    ranges.

    Args:
        fp32_onnx: The FP32 model.
        ranges: Ranges of its activations.
        ranked: Layers, the most sensitive first.
        images: Images to measure AP on.
        max_ap_loss: How much lower than in FP32 the AP (0 to 1) may be.
        max_layer_error: Layers with a larger error stay in FP32, regardless of AP.
        provider: ONNX Runtime's execution provider.

    Returns:
        The ranges with the exclusion and the AP that decided it.

    Raises:
        CalibrationError: No exclusion passes; or see :func:`average_precision`.
    """
    source = onnx.load(fp32_onnx)
    ap_fp32 = average_precision(open_session(fp32_onnx, provider), images)
    _log.info("FP32: AP %.4f on %d images", ap_fp32, images.count)
    ap_int8 = 0.0
    first = sum(error.worst > max_layer_error for error in ranked)
    for count in range(min(first, len(ranked) - 1), len(ranked)):
        exclude = tuple(error.layer for error in ranked[:count])
        model = quantize(source, ranges, exclude=exclude, name=relative_to_cwd(fp32_onnx))
        ap_int8 = average_precision(open_session(model.SerializeToString(), provider), images)
        _log.info("INT8, %d layers excluded: AP %.4f", count, ap_int8)
        if ap_fp32 - ap_int8 <= max_ap_loss:
            gate = GateResult(
                ap_fp32=round(ap_fp32, 5),
                ap_int8=round(ap_int8, 5),
                num_images=images.count,
                max_ap_loss=max_ap_loss,
                provider=provider,
            )
            return ranges.model_copy(update={"exclude": exclude, "gate": gate})
    raise CalibrationError(
        f"no exclusion of layers passes: got AP {ap_int8:.4f} with one layer in INT8, expected at least "
        f"{ap_fp32 - max_ap_loss:.4f}; calibrate again with another --method or more --num-images"
    )


def average_precision(session: onnxruntime.InferenceSession, images: EvaluationImages) -> float:
    """COCO AP (IoU 0.50 to 0.95, all areas) in [0, 1] of a detector; classes are categories in their sorted order.

    Raises:
        CalibrationError: The annotations or an image cannot be read, or there are fewer images than requested.
    """

    def detect(encoded: bytes) -> Detections:
        pixels, size_px = preprocess(encoded)
        loc, conf = session.run(["loc", "conf"], {"image": pixels[np.newaxis]})
        return postprocess(loc[0], conf[0], size_px, PostprocessParameters())

    try:
        return evaluate_detector(detect, load_dataset(images.source)).ap
    except EvaluationError as error:
        raise CalibrationError(str(error)) from error


def check_evaluation(images: EvaluationImages) -> None:
    """Check the images for :func:`average_precision` before a sensitivity table, which takes minutes.

    Raises:
        CalibrationError: pycocotools is not installed, the annotations are unreadable or hold too few images, or
            images are missing.
    """
    try:
        check_installed()
        missing = load_dataset(images.source).missing_files()
    except EvaluationError as error:
        raise CalibrationError(str(error)) from error
    if missing:
        raise CalibrationError(
            f"{relative_to_cwd(images.folder)} lacks {len(missing)} of {images.count} images that "
            f"{relative_to_cwd(images.annotations)} names: {listing(missing)}; give their folder with "
            "--evaluation-images"
        )


def _outputs(session: onnxruntime.InferenceSession, images_rgb: UInt8Array) -> list[np.ndarray]:  # type: ignore[type-arg]
    """Run on all images, one at a time, since a large batch costs memory on a CPU; return ``loc`` and ``conf``."""
    runs = [session.run(["loc", "conf"], {"image": image[np.newaxis]}) for image in images_rgb]
    return [np.concatenate(values) for values in zip(*runs, strict=True)]
