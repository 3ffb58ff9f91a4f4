"""TensorRT engines as artefacts of the model repository: built where there is the GPU that they are for.

What an engine was built from and for lies beside it in the metadata of :mod:`ssd_triton.detector.engines.metadata`; an
engine that does not fit this machine's GPU and library any more is out of date.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ssd_triton.common.machine import find_gpu
from ssd_triton.common.model_names import DETECTOR
from ssd_triton.config import Config, TensorRTConfig
from ssd_triton.detector.engines.errors import EngineError
from ssd_triton.detector.engines.metadata import Precision, check_engine
from ssd_triton.detector.engines.runtime import load_runtime
from ssd_triton.serving.repository.model_config import ModelConfig, variant_config

PRECISION_OF: dict[str, Precision] = {"tensorrt_fp32": "fp32", "tensorrt_fp16": "fp16", "tensorrt_int8": "int8"}
"""By variant, which is also the plan's name."""
ONNX_OF: dict[Precision, str] = {"fp32": "onnx_fp32", "fp16": "onnx_fp32", "int8": "onnx_int8"}
"""The variant whose ONNX file an engine is built from."""


@dataclass(frozen=True)
class EngineArtefact:
    """The engine of a variant, for the GPU of this machine or, with TensorRT-RTX, for one that is not there.

    Attributes:
        path: The plan.
        onnx: The file that it is built from.
        precision: Of the engine.
        settings: Runtime library, profile and how to build.
        model_config: Of the variant.
        compute_capability: Such as ``8.9``; None is that of the GPU here.
    """

    path: Path
    onnx: Path
    precision: Precision
    settings: TensorRTConfig
    model_config: ModelConfig
    compute_capability: str | None = None

    def stale_because(self) -> str | None:
        """See :class:`ssd_triton.serving.repository.artefact.Artefact`."""
        if not self.path.is_file():
            return "missing"
        gpu = find_gpu() if self.compute_capability is None else None
        try:
            check_engine(
                self.path,
                runtime=self.settings.runtime,
                runtime_version=load_runtime(self.settings.runtime).version,
                precision=self.precision,
                max_batch_size=self.model_config.max_batch_size,
                compute_capability=gpu.compute_capability if gpu else self.compute_capability,
                gpu_name=gpu.name if gpu else None,
                onnx=self.onnx,
            )
        except EngineError as error:
            return str(error)
        return None

    def unavailable_because(self) -> str | None:
        """See :class:`ssd_triton.serving.repository.artefact.Artefact`."""
        if self.compute_capability is None and find_gpu() is None:
            return "no GPU here; it is built where it is served"
        if not self.onnx.is_file():
            return f"{self.onnx.name} is missing, which it is built from"
        try:
            load_runtime(self.settings.runtime)
        except EngineError as error:
            return str(error)
        return None

    def build(self) -> None:
        """See :class:`ssd_triton.serving.repository.artefact.Artefact`."""
        # ONNX is imported by the builder only.
        from ssd_triton.detector.engines.build import EngineRequest, build_engine

        build_engine(
            EngineRequest(
                precision=self.precision,
                onnx=self.onnx,
                plan=self.path,
                runtime=self.settings.runtime,
                compute_capability=self.compute_capability,
                settings=self.settings,
                model_config=self.model_config,
            )
        )


def engine_artefact(config: Config, variant: str, compute_capability: str | None = None) -> EngineArtefact:
    """The engine of a variant of the repository, for the GPU here unless a compute capability is given."""
    folder = config.model_repository / DETECTOR / "1"
    precision = PRECISION_OF[variant]
    return EngineArtefact(
        path=folder / f"{variant}.plan",
        onnx=folder / f"{ONNX_OF[precision]}.onnx",
        precision=precision,
        settings=config.tensorrt,
        model_config=variant_config(config.model_repository, variant),
        compute_capability=compute_capability,
    )
