"""The detector as TorchScript, for Triton's PyTorch backend."""

from __future__ import annotations

import copy
import io
import warnings
from pathlib import Path

import torch
from torch import nn

from ssd_triton.common.arrays import AnyArray
from ssd_triton.common.errors import ExportError
from ssd_triton.common.files import atomic_output
from ssd_triton.detector.export.compare import check_values
from ssd_triton.detector.network.boxes import IMAGE_SIZE_PX
from ssd_triton.detector.network.fused import FusedDetector
from ssd_triton.detector.network.ssd import ServedDetector, predict

MAX_RELATIVE_ERROR = {torch.float32: 1e-4, torch.float16: 5e-3}
"""Relative L2 error allowed against PyTorch in FP32: rounding in FP32, and weights rounded to FP16."""


def export_eager(detector: ServedDetector, path: Path, images_rgb: AnyArray, dtype: torch.dtype) -> dict[str, float]:
    """Write the network layer by layer, without fusion: the baseline for the other variants.

    Args:
        detector: In FP32 and evaluation mode; it is not changed.
        path: The file to write; an older file is kept until the new one has passed the check.
        images_rgb: UINT8 [N, 300, 300, 3], N >= 2, real images for the check.
        dtype: Dtype of weights and activations.

    Returns:
        Relative L2 error of each output.

    Raises:
        ExportError: The file's outputs differ, or a weight is not finite in ``dtype``.
    """
    example = torch.randint(0, 256, (2, IMAGE_SIZE_PX, IMAGE_SIZE_PX, 3), dtype=torch.uint8)
    # A trace stores the current cuDNN flags and later ignores those of the process that runs it. FP32 must not be TF32.
    exact = torch.backends.cudnn.flags(enabled=True, allow_tf32=False)
    with torch.inference_mode(), exact, warnings.catch_warnings():
        warnings.simplefilter("ignore", category=DeprecationWarning)
        # Traced in FP32, which is fast on a CPU. The trace names no dtype: the weights are cast afterwards.
        traced = torch.jit.trace(copy.deepcopy(detector), (example,), check_trace=False)  # type: ignore[no-untyped-call]
    script = traced.to(dtype=dtype)
    _check_finite(script, dtype)
    return _save(script, path, detector, images_rgb, MAX_RELATIVE_ERROR[dtype])


def export_fused(detector: ServedDetector, path: Path, images_rgb: AnyArray) -> dict[str, float]:
    """Write the fused network (:mod:`ssd_triton.detector.network.fused`) in FP16; otherwise as :func:`export_eager`."""
    fused = FusedDetector(detector, torch.float16)
    _check_finite(fused, torch.float16)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", category=DeprecationWarning)
        script = torch.jit.script(fused)
    return _save(script, path, detector, images_rgb, MAX_RELATIVE_ERROR[torch.float16])


def _check_finite(module: nn.Module, dtype: torch.dtype) -> None:
    lost = [name for name, value in module.state_dict().items() if not torch.isfinite(value).all()]
    if lost:
        raise ExportError(f"not finite in {dtype}: {', '.join(lost[:6])}; rescale these weights")


def _save(
    script: torch.jit.ScriptModule, path: Path, detector: ServedDetector, images_rgb: AnyArray, max_error: float
) -> dict[str, float]:
    """Write a module once its outputs, computed in FP32 on a CPU, equal those of the detector."""
    buffer = io.BytesIO()
    torch.jit.save(script, buffer)
    buffer.seek(0)
    loaded = torch.jit.load(buffer, map_location="cpu").float()  # type: ignore[no-untyped-call]
    loc, conf = predict(detector, images_rgb)
    for n in (1, len(images_rgb)):
        with torch.inference_mode():
            got_loc, got_conf = loaded(torch.from_numpy(images_rgb[:n]))
        errors = check_values(
            expected={"loc": loc[:n], "conf": conf[:n]},
            got={"loc": got_loc.numpy(), "conf": got_conf.numpy()},
            max_relative_error=max_error,
            name=f"{path.name} at batch {n}",
        )
    with atomic_output(path) as temporary:
        temporary.write_bytes(buffer.getvalue())
    return errors
