"""A TensorRT engine of the detector: its sources and target, whether it is out of date, and building it.

A file beside the engine records its sources and target (:mod:`ssd_triton.detector.engines.metadata`). An engine that
does not fit this machine's GPU and library is out of date.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ssd_triton.common.machine import find_gpu
from ssd_triton.config import TensorRTConfig
from ssd_triton.detector.engines.errors import EngineError
from ssd_triton.detector.engines.metadata import check_engine
from ssd_triton.detector.engines.runtime import load_runtime
from ssd_triton.detector.variants import Precision


@dataclass(frozen=True, kw_only=True)
class Engine:
    """An engine for the GPU of this machine or, with TensorRT-RTX, for another GPU.

    Attributes:
        path: The plan; its metadata lie beside it.
        onnx: The detector as ONNX: FP32 for ``fp32`` and ``fp16``, quantised for ``int8``.
        precision: The precision of the engine.
        max_batch_size: Images in the largest batch that Triton sends.
        num_labels: Classes, the background included.
        settings: Builder library, profile, optimisation level, workspace, TF32 and timing cache.
        compute_capability: Compute capability of the GPU, such as ``8.9``; None for the GPU of this machine.
    """

    path: Path
    onnx: Path
    precision: Precision
    max_batch_size: int
    num_labels: int
    settings: TensorRTConfig
    compute_capability: str | None = None

    def stale_because(self) -> str | None:
        """Why it must be built, or None when it is current."""
        if not self.path.is_file():
            return "missing"
        gpu = find_gpu() if self.compute_capability is None else None
        try:
            check_engine(
                self.path,
                runtime=self.settings.runtime,
                runtime_version=load_runtime(self.settings.runtime).version,
                precision=self.precision,
                max_batch_size=self.max_batch_size,
                compute_capability=gpu.compute_capability if gpu else self.compute_capability,
                gpu_name=gpu.name if gpu else None,
                onnx=self.onnx,
            )
        except EngineError as error:
            return str(error)
        return None

    def unavailable_because(self) -> str | None:
        """Why it cannot be built here at all, or None."""
        if self.compute_capability is None and find_gpu() is None:
            return "no GPU here; it is built where it is served"
        if not self.onnx.is_file():
            return f"the file it is built from, {self.onnx.name}, is missing"
        try:
            load_runtime(self.settings.runtime)
        except EngineError as error:
            return str(error)
        return None

    def build(self) -> None:
        """Build it; the old one is replaced only when the new one is complete.

        Raises:
            EngineError: See :func:`ssd_triton.detector.engines.build.build_engine`.
            ExportError: See :func:`ssd_triton.detector.engines.build.build_engine`.
        """
        # Imported here, because only building needs ONNX: checking whether an engine is current does not.
        from ssd_triton.detector.engines.build import build_engine

        build_engine(self)
