"""The post-processing as TorchScript, for Triton's PyTorch backend and GPUs."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ssd_triton.common.arrays import AnyArray
from ssd_triton.common.files import atomic_output
from ssd_triton.detector.postprocessing.check import check_detections
from ssd_triton.detector.postprocessing.pytorch import PostProcess

if TYPE_CHECKING:
    from ssd_triton.detector.postprocessing.parameters import PostprocessParameters

OUTPUTS = ("num_detections", "detection_boxes", "detection_scores", "detection_classes")
"""In the order of the results."""


def export_postprocess_script(path: Path, num_labels: int, parameters: PostprocessParameters) -> None:
    """Write the post-processing as TorchScript, and prove it equal to the NumPy reference, on a CPU.

    Raises:
        ExportError: Its detections differ from the reference.
    """
    buffer = io.BytesIO()
    script = compile_postprocess(parameters)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", category=DeprecationWarning)
        torch.jit.save(script, buffer)
        buffer.seek(0)
        loaded = torch.jit.load(buffer, map_location="cpu")  # type: ignore[no-untyped-call]
    check_detections(lambda inputs: run_script(loaded, inputs), num_labels, parameters)
    with atomic_output(path) as temporary:
        temporary.write_bytes(buffer.getvalue())


def compile_postprocess(parameters: PostprocessParameters) -> torch.jit.ScriptModule:
    """The module of :mod:`ssd_triton.detector.postprocessing.pytorch`, compiled."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", category=DeprecationWarning)
        script: torch.jit.ScriptModule = torch.jit.script(PostProcess(parameters).eval())
    return script


def run_script(script: Any, inputs: Mapping[str, AnyArray]) -> dict[str, AnyArray]:
    """Run it once on a CPU, as the backends do: without compiling anything for the shapes of this batch."""
    arguments = [torch.from_numpy(inputs[name]) for name in ("loc", "conf", "original_size")]
    with torch.inference_mode(), torch.jit.optimized_execution(False):  # type: ignore[attr-defined]
        return {name: value.numpy() for name, value in zip(OUTPUTS, script(*arguments), strict=True)}
