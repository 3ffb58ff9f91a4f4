"""Metadata of an engine, in a JSON file beside it; an engine that does not fit is refused.

A plan runs only on the compute capability and the runtime version that it was built for. TensorRT reports a mismatch
late, and without the command that fixes it. This module imports neither TensorRT, ONNX nor PyTorch, so that a server
can check a plan before it loads it.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ssd_triton.common.files import relative_to_cwd, sha256_of
from ssd_triton.config import RuntimeName
from ssd_triton.detector.engines.errors import EngineError
from ssd_triton.detector.engines.inspection import EngineLayer, EngineReport
from ssd_triton.detector.variants import Precision

Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class BatchProfile(BaseModel):
    """Batch sizes of an engine: the smallest and the largest that it takes, and the one it is tuned for."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    min: int
    opt: int
    max: int

    def __str__(self) -> str:
        return f"{self.min}/{self.opt}/{self.max}"


class EngineMetadata(BaseModel):
    """What a plan was built from, for and with.

    ``compute_capability`` has the form ``8.6``. ``gpu_name`` is None for an engine built ahead of time. ``onnx`` and
    ``onnx_sha256`` belong to the file that the user gave, even where it was cast to FP16 first. ``built`` is UTC, ISO
    8601. ``layers`` are those of :mod:`ssd_triton.detector.engines.inspection`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    runtime: RuntimeName
    runtime_version: str
    gpu_name: str | None
    compute_capability: str
    precision: Precision
    profile: BatchProfile
    tf32: bool
    builder_optimization_level: int
    workspace_mib: int
    onnx: str
    onnx_sha256: Sha256
    plan_sha256: Sha256
    built: str
    build_s: float
    layers: tuple[EngineLayer, ...]


def metadata_path(plan: Path) -> Path:
    """``x.plan`` -> ``x.engine.json``, beside it."""
    return plan.with_suffix(".engine.json")


def build_command(precision: str, runtime: str, compute_capability: str, plan: Path) -> str:
    """Return the command line that builds a plan."""
    words = ["ssd-triton", "engine", "--precision", precision, "--runtime", runtime]
    # TensorRT builds for the GPU it runs on; only TensorRT-RTX can build for another one.
    words += ["--compute-capability", compute_capability] if runtime == "tensorrt-rtx" else []
    return shlex.join([*words, "--output", relative_to_cwd(plan)])


def check_engine(
    plan: Path,
    *,
    runtime: RuntimeName,
    runtime_version: str,
    precision: Precision,
    max_batch_size: int,
    compute_capability: str | None = None,
    onnx: Path | None = None,
    gpu_name: str | None = None,
) -> EngineMetadata:
    """Refuse a plan that was not built for where it is about to be loaded.

    Args:
        plan: The engine; its metadata lie beside it.
        runtime: The library that will load it.
        runtime_version: ``tensorrt.__version__`` or ``tensorrt_rtx.__version__``.
        precision: The variant's precision.
        max_batch_size: The variant's largest batch; the profile must range from 1 to exactly this.
        compute_capability: Compute capability of the GPU, such as ``8.6``; None skips this check.
        onnx: The file that the plan should be built from; None where the server does not have it.
        gpu_name: Name of the GPU; None skips this check. Only plans of TensorRT are tied to one model of GPU; those of
            TensorRT-RTX run on every GPU of their compute capability.

    Raises:
        EngineError: The plan or its metadata is missing or damaged, or does not fit. The message names everything that
            differs, what was found, what was expected, and the command that builds the plan again.
    """
    metadata = read_metadata(plan, precision)
    capability = compute_capability or metadata.compute_capability
    rebuild = f"build it again: {build_command(precision, runtime, capability, plan)}"
    expected: dict[str, object] = {
        "runtime": runtime,
        "runtime_version": runtime_version,
        "compute_capability": capability,
        "precision": precision,
        "profile": BatchProfile(min=1, opt=metadata.profile.opt, max=max_batch_size),
    }
    if onnx is not None:
        expected["onnx_sha256"] = _digest(onnx, "ONNX file", rebuild)
    if gpu_name is not None and runtime == "tensorrt":
        expected["gpu_name"] = gpu_name
    problems = [
        f"{key.replace('_', ' ')}: got {getattr(metadata, key)}, expected {value}"
        for key, value in expected.items()
        if getattr(metadata, key) != value
    ]
    if problems:
        raise EngineError(f"{relative_to_cwd(plan)} does not fit: {'; '.join(problems)}; {rebuild}")
    return metadata


def inspect_engine(plan: Path) -> EngineReport:
    """Read the layers of a plan, as the builder reported them; no GPU is needed.

    Raises:
        EngineError: The plan or its metadata is missing or damaged, or the metadata belong to another plan.
    """
    return EngineReport(read_metadata(plan).layers)


def read_metadata(plan: Path, precision: Precision | None = None) -> EngineMetadata:
    """Read the metadata of a plan, and check that they belong to this file.

    Args:
        plan: The engine.
        precision: The precision in the command that an error message shows; None leaves it out.

    Raises:
        EngineError: The plan or its metadata is missing or damaged, or the metadata belong to another plan.
    """
    words = ["--precision", precision] if precision else []
    command = shlex.join(["ssd-triton", "engine", *words, "--output", relative_to_cwd(plan)])
    advice = f"build it again: {command}"
    digest = _digest(plan, "engine", advice)
    path = metadata_path(plan)
    name = relative_to_cwd(path)
    try:
        metadata = EngineMetadata.model_validate_json(path.read_bytes())
    except OSError:
        raise EngineError(f"{relative_to_cwd(plan)} has no metadata, expected {name}; {advice}") from None
    except ValidationError as error:
        fields = ", ".join(".".join(map(str, problem["loc"])) or "no JSON" for problem in error.errors()[:5])
        raise EngineError(f"{name} is not the metadata of an engine (wrong: {fields}); {advice}") from None
    if metadata.plan_sha256 != digest:
        raise EngineError(
            f"{relative_to_cwd(plan)} is not the file that was built: got SHA-256 {digest}, expected "
            f"{metadata.plan_sha256} as {name} says; {advice}"
        )
    return metadata


def _digest(path: Path, kind: str, advice: str) -> str:
    try:
        return sha256_of(path)
    except OSError as error:
        raise EngineError(f"cannot read the {kind} {relative_to_cwd(path)} ({error.strerror}); {advice}") from None
