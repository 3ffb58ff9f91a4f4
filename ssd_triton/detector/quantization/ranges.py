"""What a calibration leaves behind, as a small readable file beside the weights.

A fresh clone has no training images: with this file INT8 builds everywhere. It is tied to its weights by their SHA-256.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ssd_triton.common.errors import UserError, listing
from ssd_triton.common.files import atomic_output, relative_to_cwd, sha256_of
from ssd_triton.config import CalibrationMethod, WeightBits

Finite = Annotated[float, Field(allow_inf_nan=False)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class CalibrationError(UserError):
    """Calibration images or ranges are missing, unreadable, or belong to something else."""


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class GateResult(_Record):
    """What the exclusion of layers was decided by: COCO AP in [0, 1] on ``num_images`` evaluation images."""

    ap_fp32: Finite
    ap_int8: Finite
    num_images: int
    max_ap_loss: Finite
    provider: str


class CalibrationRanges(_Record):
    """What a calibration leaves behind.

    Attributes:
        weights_sha256: Of the weights file that the ranges belong to.
        weight_bits: 8, or 7 to leave room where a CPU adds two products of 8-bit numbers in 16 bits.
        method: How the ranges were chosen; see :func:`calibrate`.
        num_images: Calibration images.
        images_sha256: Of the calibration images' names and contents.
        ranges: Of each activation, by the tensor's name in the FP32 ONNX file, its lowest and highest value.
        exclude: Layers that stay in FP32, by name, as measured by ``tools/quantize_onnx.py --sensitivity``.
        gate: The measurement behind ``exclude``; None before there was one.
        versions: Of the packages that took part.
        created: ISO 8601, UTC.
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
    """Where the ranges of a weights file lie: beside it, as ``NAME.calibration.json``."""
    return weights_path.with_name(f"{weights_path.stem}.calibration.json")


def load_ranges(path: Path, weights_path: Path) -> CalibrationRanges:
    """Read the ranges that belong to a weights file.

    Raises:
        CalibrationError: The ranges are missing, unreadable, or of other weights; the message says which command
            makes them.
    """
    name, mend = relative_to_cwd(path), _mend(weights_path)
    if not path.is_file():
        raise CalibrationError(f"calibration ranges not found: {name}; {mend}")
    try:
        loaded = CalibrationRanges.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValidationError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CalibrationError(f"{name} does not hold calibration ranges ({reason}); {mend}") from error
    if not weights_path.is_file():
        raise CalibrationError(f"weights not found: {relative_to_cwd(weights_path)}; set weights_path in config.yml")
    expected = sha256_of(weights_path)
    if loaded.weights_sha256 != expected:
        raise CalibrationError(
            f"{name} holds the ranges of other weights: got SHA-256 {loaded.weights_sha256}, expected {expected} of "
            f"{relative_to_cwd(weights_path)}; {mend}"
        )
    return loaded


def save_ranges(ranges: CalibrationRanges, path: Path) -> None:
    """Write ranges as JSON: keys sorted, one range a line; an older file is replaced only by a whole one."""
    text = json.dumps(ranges.model_dump(mode="json"), indent=2, sort_keys=True)
    one_line_arrays = re.sub(r"\[[^\[\]{}]*\]", lambda array: re.sub(r"\s+", " ", array[0]), text)
    with atomic_output(path) as temporary:
        temporary.write_text(one_line_arrays + "\n", encoding="utf-8")


def _mend(weights_path: Path) -> str:
    return (
        "measure those of these weights with 'python tools/quantize_onnx.py --calibrate --images "
        f"FOLDER_OF_TRAINING_IMAGES --weights-path {relative_to_cwd(weights_path)}', or take another variant than INT8"
    )
