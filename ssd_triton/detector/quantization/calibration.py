"""Calibration for INT8: measures the range of every quantised activation on training images."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import logging
import platform
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnxruntime.quantization.calibrate import HistogramCollector

from ssd_triton.common.arrays import AnyArray, UInt8Array
from ssd_triton.common.errors import ImageError, listing
from ssd_triton.common.files import relative_to_cwd, sha256_of
from ssd_triton.config import CalibrationMethod, WeightBits
from ssd_triton.detector.protocol import preprocess
from ssd_triton.detector.quantization.ranges import CalibrationError, CalibrationRanges
from ssd_triton.detector.weights.file import WeightsFile
from ssd_triton.media.images import EXPECTED, is_image, list_images, read_image

PERCENTILE = 99.999
"""Percentage of an activation's values that the method 'percentile' keeps; ONNX Runtime's default."""
_NUM_BINS = 2048
"""Bins of a histogram, as in TensorRT's entropy calibrator and ONNX Runtime's percentile calibrator."""
_NUM_QUANTIZED_BINS = 128
"""Steps of a symmetric INT8 range on one side of zero; the entropy method compares the histogram with them."""
_RANGE_DIGITS = 6
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CalibrationImages:
    """Training images, resized as the protocol demands.

    Attributes:
        pixels: UINT8 [N, 300, 300, 3] RGB.
        sha256: Digest of the files' names and contents.
    """

    pixels: UInt8Array
    sha256: str


def load_images(folder: Path, count: int, evaluation: Iterable[Path] = ()) -> CalibrationImages:
    """Read ``count`` images, spread evenly over the folder's sorted names.

    Args:
        folder: Training images.
        count: Number of images.
        evaluation: Evaluation images: files, folders, or COCO annotation files. Training images with the name, the
            COCO id or the content of an evaluation image are refused.

    Raises:
        CalibrationError: The folder is missing or holds too few images, an image cannot be read, or some are
            evaluation images.
    """
    name = relative_to_cwd(folder)
    if not folder.is_dir():
        raise CalibrationError(f"{name} is not a folder; give a folder of training images with --images FOLDER")
    found = list_images(folder)
    found.warn_of_skipped()
    paths = found.paths
    if len(paths) < count:
        raise CalibrationError(
            f"got {len(paths)} images in {name}, expected {count} or more training images ({EXPECTED}); give another "
            "folder with --images or fewer with --num-images"
        )
    _refuse_evaluation_images(folder, paths, evaluation)
    chosen = [paths[index * len(paths) // count] for index in range(count)]
    digest = hashlib.sha256()
    for path in chosen:
        digest.update(f"{path.name} {_content_sha256(path)}\n".encode())
    return CalibrationImages(np.stack([_read(path) for path in chosen]), digest.hexdigest())


def calibrate(
    fp32_onnx: Path,
    tensors: Sequence[str],
    images: CalibrationImages,
    method: CalibrationMethod,
    *,
    weights: WeightsFile,
    weight_bits: WeightBits,
) -> CalibrationRanges:
    """Measure the ranges of activations.

    Args:
        fp32_onnx: The FP32 model, input ``image``.
        tensors: Names of the activations.
        images: Training images; the model runs on one at a time.
        method: 'minmax' keeps every value; 'percentile' cuts values beyond :data:`PERCENTILE`; 'entropy' cuts where
            the quantised distribution differs least (Kullback-Leibler) from the FP32 one.
        weights: The file that the model was exported from.
        weight_bits: Bits of the weights in the INT8 file that will be built with the ranges; only recorded here.

    Raises:
        WeightsError: The weights file is missing.
    """
    session = _session_with_outputs(fp32_onnx, tensors)
    runs = (_run(session, tensors, image, (index, len(images.pixels))) for index, image in enumerate(images.pixels))
    ranges = _extremes(runs) if method == "minmax" else _cut(runs, method)
    return CalibrationRanges(
        weights_sha256=weights.sha256,
        weight_bits=weight_bits,
        method=method,
        num_images=len(images.pixels),
        images_sha256=images.sha256,
        ranges={tensor: (_rounded(low), _rounded(high)) for tensor, (low, high) in ranges.items()},
        versions={
            "python": platform.python_version(),
            **{package: version(package) for package in ("onnx", "onnxruntime-openvino", "torch")},
        },
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )


def _refuse_evaluation_images(folder: Path, paths: Sequence[Path], evaluation: Iterable[Path]) -> None:
    """Refuse training images that are evaluation images: by COCO id, even if re-encoded, or by content."""
    keys: set[str] = set()
    contents: set[str] = set()
    for source in evaluation:
        source_keys, files = _evaluation_images(source)
        keys |= source_keys
        contents |= {_content_sha256(file) for file in files}
    overlap = [
        path.name for path in paths if _key(path.name) in keys or (contents and _content_sha256(path) in contents)
    ]
    if overlap:
        raise CalibrationError(
            f"{len(overlap)} of {len(paths)} images in {relative_to_cwd(folder)} are evaluation images: "
            f"{listing(overlap)}; expected training images only: remove them or give another folder with --images"
        )


def _evaluation_images(source: Path) -> tuple[set[str], list[Path]]:
    """Keys of a source's images, and their files; an annotation file has only keys."""
    if source.is_dir():
        files = list(list_images(source).paths)
    elif is_image(source):
        files = [source]
    else:
        return {_key(name) for name in _annotated_names(source)}, []
    if not files:
        raise CalibrationError(f"got no images in {relative_to_cwd(source)}, expected the evaluation images")
    return {_key(path.name) for path in files}, files


def _annotated_names(path: Path) -> list[str]:
    """File names of the images in a COCO annotation file."""
    try:
        images: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["images"]
        names = [str(image["file_name"]) for image in images]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CalibrationError(
            f"{relative_to_cwd(path)}: got {type(error).__name__} ({error}), expected a COCO annotation file"
        ) from error
    return names


def _key(file_name: str) -> str:
    """Key of an image by its name: its number in COCO (``000000000776.jpg`` is 776), or else the name's stem."""
    stem = Path(file_name).stem.removeprefix("COCO_train2014_").removeprefix("COCO_val2014_")
    return str(int(stem)) if stem.isdecimal() else stem


def _read(path: Path) -> UInt8Array:
    try:
        return preprocess(read_image(path), relative_to_cwd(path))[0]
    except ImageError as error:
        raise CalibrationError(f"{error}, or remove it from its folder") from error


def _content_sha256(path: Path) -> str:
    try:
        return sha256_of(path)
    except OSError as error:
        raise CalibrationError(
            f"{relative_to_cwd(path)} is not a readable image ({error}); remove it from its folder"
        ) from error


def _session_with_outputs(fp32_onnx: Path, tensors: Sequence[str]) -> onnxruntime.InferenceSession:
    model = onnx.load(fp32_onnx)
    known = {output.name for output in model.graph.output}
    model.graph.output.extend(onnx.ValueInfoProto(name=tensor) for tensor in tensors if tensor not in known)
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def _run(
    session: onnxruntime.InferenceSession, tensors: Sequence[str], image: UInt8Array, position: tuple[int, int]
) -> dict[str, AnyArray]:
    index, count = position
    if index % 16 == 0:
        _log.info("calibrating: image %d of %d", index + 1, count)
    return dict(zip(tensors, session.run(list(tensors), {"image": image[np.newaxis]}), strict=True))


def _extremes(runs: Iterator[dict[str, AnyArray]]) -> dict[str, tuple[float, float]]:
    ranges: dict[str, tuple[float, float]] = {}
    for run in runs:
        for tensor, values in run.items():
            low, high = ranges.get(tensor, (np.inf, -np.inf))
            ranges[tensor] = min(low, float(values.min())), max(high, float(values.max()))
    return ranges


def _cut(runs: Iterator[dict[str, AnyArray]], method: CalibrationMethod) -> dict[str, tuple[float, float]]:
    """Ranges without rare large values, from ONNX Runtime's histograms; its printed output is suppressed."""
    collector = HistogramCollector(
        method=method,
        symmetric=True,
        num_bins=_NUM_BINS,
        num_quantized_bins=_NUM_QUANTIZED_BINS,
        percentile=PERCENTILE,
        scenario="same",  # required, but unused by these methods
    )
    for run in runs:
        with contextlib.redirect_stdout(io.StringIO()):
            collector.collect(run)
    with contextlib.redirect_stdout(io.StringIO()):
        found = collector.compute_collection_result()
    return {tensor: (float(values[0]), float(values[1])) for tensor, values in found.items()}


def _rounded(value: float) -> float:
    return float(f"{value:.{_RANGE_DIGITS}g}")
