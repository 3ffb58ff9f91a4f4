"""Calibration ranges: a small readable file beside the weights.

A fresh clone has no training images; with this file it still builds INT8. The weights' SHA-256 ties the file to them.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ssd_triton.common.errors import UserError, listing
from ssd_triton.common.files import atomic_output, relative_to_cwd
from ssd_triton.config import CalibrationMethod, WeightBits
from ssd_triton.detector.weights.file import WeightsFile

Finite = Annotated[float, Field(allow_inf_nan=False)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class CalibrationError(UserError):
    """Calibration images or ranges are missing, unreadable, or belong to other weights."""


class _StrictModel(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class GateResult(_StrictModel):
    """The measurement that decided which layers to exclude: COCO AP in [0, 1] on ``num_images`` evaluation images."""

    ap_fp32: Finite
    ap_int8: Finite
    num_images: int
    max_ap_loss: Finite
    provider: str


class CalibrationRanges(_StrictModel):
    """The result of a calibration.

    Attributes:
        weights_sha256: Digest of the weights file that the ranges belong to.
        weight_bits: 8, or 7 to avoid overflow on CPUs that add two products of 8-bit numbers in 16 bits.
        method: How the ranges were chosen; see :func:`ssd_triton.detector.quantization.calibration.calibrate`.
        num_images: Number of calibration images.
        images_sha256: Digest of the calibration images' names and contents.
        ranges: Lowest and highest value of each activation, by the tensor's name in the FP32 ONNX file.
        exclude: Names of layers that stay in FP32, as measured by ``ssd-triton quantize --sensitivity``.
        gate: The measurement behind ``exclude``; None if nothing was measured.
        versions: Versions of Python and of the packages used.
        created: Time of the calibration, ISO 8601, UTC.
    """

    weights_sha256: Sha256
    weight_bits: WeightBits
    method: CalibrationMethod
    num_images: Annotated[int, Field(ge=1)]
    images_sha256: Sha256
    ranges: dict[str, tuple[Finite, Finite]]
    exclude: tuple[str, ...] = ()
    gate: GateResult | None = None
    versions: dict[str, str]
    created: str

    @model_validator(mode="after")
    def _check_order(self) -> CalibrationRanges:
        reversed_ranges = [name for name, (low, high) in self.ranges.items() if low > high]
        if reversed_ranges:
            raise ValueError(f"lowest above highest for {listing(reversed_ranges)}")
        return self


def ranges_path(weights_path: Path) -> Path:
    """Return the path of a weights file's ranges: ``NAME.calibration.json`` beside it."""
    return weights_path.with_name(f"{weights_path.stem}.calibration.json")


def load_ranges(path: Path, weights: WeightsFile) -> CalibrationRanges:
    """Read the ranges that belong to a weights file.

    Raises:
        CalibrationError: The ranges are missing, unreadable, or belong to other weights; the message has the command
            that measures them.
        WeightsError: The weights file is missing.
    """
    name, advice = relative_to_cwd(path), _advice(weights)
    if not path.is_file():
        raise CalibrationError(f"calibration ranges not found: {name}; {advice}")
    try:
        loaded = CalibrationRanges.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValidationError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CalibrationError(f"{name} does not hold calibration ranges ({reason}); {advice}") from error
    if loaded.weights_sha256 != weights.sha256:
        raise CalibrationError(
            f"{name} holds the ranges of other weights: got SHA-256 {loaded.weights_sha256}, expected {weights.sha256} "
            f"of {relative_to_cwd(weights.path)}; {advice}"
        )
    return loaded


def save_ranges(ranges: CalibrationRanges, path: Path) -> None:
    """Write ranges as JSON, keys sorted, one range per line; an older file is replaced only by a complete one."""
    text = json.dumps(ranges.model_dump(mode="json"), indent=2, sort_keys=True)
    one_line_arrays = re.sub(r"\[[^\[\]{}]*\]", lambda array: re.sub(r"\s+", " ", array[0]), text)
    with atomic_output(path) as temporary:
        temporary.write_text(one_line_arrays + "\n", encoding="utf-8")


def _advice(weights: WeightsFile) -> str:
    return (
        "measure ranges for these weights with 'ssd-triton quantize --calibrate --images FOLDER_OF_TRAINING_"
        f"IMAGES --weights-path {relative_to_cwd(weights.path)}', or choose a variant other than INT8"
    )
