"""Building TensorRT engines of the detector: FP32, FP16 and INT8, with a dynamic batch.

Networks are strongly typed: TensorRT may not change the types of the ONNX file. FP32 is built from the FP32 file, with
TF32 off unless the settings enable it. FP16 is built from the same file, cast by
:mod:`ssd_triton.detector.export.half`. INT8 is built from a file with QuantizeLinear and DequantizeLinear nodes; its
other layers stay in FP32.

TensorRT builds for the GPU it runs on. TensorRT-RTX builds for a named compute capability without any GPU. Polygraphy
drives both. The post-processing is not built as an engine, because TensorRT-RTX has no kernel for NonMaxSuppression.
TensorRT accepts a UINT8 input only straight into a Cast, so the graph of
:class:`ssd_triton.detector.network.ssd.ServedDetector` begins with one.

    ssd-triton engine --precision fp16 --runtime tensorrt-rtx --compute-capability 8.9
"""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable
from datetime import datetime, timezone
from hashlib import sha256
from importlib import import_module
from typing import Any

from ssd_triton.common.files import atomic_output, relative_to_cwd, sha256_of
from ssd_triton.common.machine import Gpu, find_gpu
from ssd_triton.common.model_names import DETECTOR
from ssd_triton.config import TensorRTConfig
from ssd_triton.detector.engines.engine import Engine
from ssd_triton.detector.engines.errors import EngineError
from ssd_triton.detector.engines.inspection import EngineLayer, EngineReport, parse_layers
from ssd_triton.detector.engines.metadata import BatchProfile, EngineMetadata, metadata_path
from ssd_triton.detector.engines.onnx_source import BORDER, IMAGE, detector_onnx
from ssd_triton.detector.engines.runtime import (
    BuilderLog,
    Runtime,
    captured_log,
    load_runtime,
    run_cancellable,
)
from ssd_triton.detector.network.boxes import IMAGE_SIZE_PX
from ssd_triton.detector.variants import Precision

_MIB = 1 << 20
_LACKING: dict[Precision, Callable[[tuple[int, int]], bool]] = {
    "fp32": lambda capability: False,
    # "Hardware and precision" in the support matrix of TensorRT 8, the last to support GPUs without FP16 or INT8.
    "fp16": lambda capability: capability < (5, 3) or capability == (6, 1),
    "int8": lambda capability: capability < (6, 1) or capability == (6, 2),
}


def batch_profile(settings: TensorRTConfig, max_batch_size: int) -> BatchProfile:
    """Return the optimisation profile, checked against the batches that Triton sends.

    Args:
        settings: Have the three sizes of the profile.
        max_batch_size: Images in the largest batch that Triton sends.

    Raises:
        EngineError: The three sizes are not in order, do not begin at 1, or do not end at ``max_batch_size``.
    """
    sizes = settings.profile
    profile = BatchProfile(min=sizes.min, opt=sizes.opt, max=sizes.max)
    if not 1 == sizes.min <= sizes.opt <= sizes.max:
        raise EngineError(
            f"the profile is {profile} images (min/opt/max), expected 1 <= opt <= max with min 1, since Triton also "
            "sends single images: set tensorrt.profile in config.yml"
        )
    if sizes.max != max_batch_size:
        raise EngineError(
            f"the profile's largest batch is {sizes.max}, expected {max_batch_size} as max_batch_size of "
            f"the variant says: set tensorrt.profile.max in config.yml, or max_batch_size in {DETECTOR}'s configuration"
        )
    return profile


def build_engine(engine: Engine) -> EngineMetadata:
    """Build a plan and write it with its metadata; the old files are replaced only when both are complete.

    Returns:
        The metadata, also written beside the plan, at :func:`metadata_path`.

    Raises:
        EngineError: The profile, precision, compute capability, library or ONNX file does not fit; or TensorRT refused
            the network; the message quotes it.
        ExportError: The ONNX file has another interface, or weights that do not fit FP16.
    """
    profile = batch_profile(engine.settings, engine.max_batch_size)
    # ONNX first: reading it is fast, and importing a library of a gigabyte is not.
    model_bytes = detector_onnx(engine.onnx, engine.precision, engine.num_labels)
    runtime = load_runtime(engine.settings.runtime)
    gpu = find_gpu()
    capability = _target(engine, runtime, gpu)
    name = relative_to_cwd(engine.path)
    logging.info("building %s for compute capability %s: %s %s", name, capability, runtime.name, runtime.version)
    start = time.perf_counter()
    plan_bytes, log = _build(engine, runtime, capability, profile, model_bytes)
    build_s = time.perf_counter() - start
    metadata = EngineMetadata(
        runtime=runtime.name,
        runtime_version=runtime.version,
        gpu_name=gpu.name if gpu is not None and gpu.compute_capability == capability else None,
        compute_capability=capability,
        precision=engine.precision,
        profile=profile,
        tf32=engine.settings.tf32,
        builder_optimization_level=engine.settings.builder_optimization_level,
        workspace_mib=engine.settings.workspace_mib,
        onnx=engine.onnx.name,
        onnx_sha256=sha256_of(engine.onnx),
        plan_sha256=sha256(plan_bytes).hexdigest(),
        built=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        build_s=round(build_s, 2),
        layers=_layers(log, runtime, plan_bytes),
    )
    # The metadata are moved last: a plan without its own metadata is refused when it is loaded.
    with atomic_output(metadata_path(engine.path)) as metadata_file, atomic_output(engine.path) as plan_file:
        plan_file.write_bytes(plan_bytes)
        metadata_file.write_text(metadata.model_dump_json(indent=1) + "\n", encoding="utf-8")
    return metadata


def unexpected_layers(metadata: EngineMetadata) -> list[str]:
    """List layers that do not have the types of the engine's precision; empty for a good engine.

    FP32 and FP16 engines are expected to run every convolution in their type and to change types only at the network's
    input and outputs. In an INT8 engine at least one convolution runs in INT8, and quantising between layers is normal.
    """
    report = EngineReport(metadata.layers)
    types = report.convolution_types()
    wanted = {"fp32": "Float", "fp16": "Half", "int8": "Int8"}[metadata.precision]
    found = ", ".join(f"{count} {dtype}" for dtype, count in sorted(types.items())) or "none"
    if metadata.precision == "int8":
        return [] if types["Int8"] else [f"convolutions: got {found}, expected some in Int8"]
    problems = [] if set(types) == {wanted} else [f"convolutions: got {found}, expected all in {wanted}"]
    return problems + [f"layer '{layer.name}' changes types" for layer in report.inner_conversions(BORDER)]


def _target(engine: Engine, runtime: Runtime, gpu: Gpu | None) -> str:
    """The compute capability to build for."""
    wanted = engine.compute_capability
    if not runtime.is_rtx:
        if gpu is None:
            raise EngineError(
                "TensorRT builds for the GPU it runs on and found none: run this where the engine is served, or "
                "build ahead of time with --runtime tensorrt-rtx --compute-capability 8.9"
            )
        if wanted not in (None, gpu.compute_capability):
            raise EngineError(
                f"TensorRT builds for the GPU it runs on, {gpu.name} of compute capability {gpu.compute_capability}; "
                f"got --compute-capability {wanted}: leave it out, or add --runtime tensorrt-rtx"
            )
    capability = wanted or (gpu.compute_capability if gpu is not None else None)
    if capability is None:
        raise EngineError("found no GPU to build for: name one with --compute-capability, such as 8.9")
    known = runtime.ahead_of_time_capabilities()
    numbers = _numbers(capability)
    if _LACKING[engine.precision](numbers):
        raise EngineError(
            f"a GPU of compute capability {capability} has no {engine.precision.upper()}: build with --precision fp32"
        )
    if runtime.is_rtx and capability not in known:
        raise EngineError(
            f"TensorRT-RTX {runtime.version} does not build for compute capability {capability}, expected one of: "
            f"{', '.join(known)}"
        )
    return capability


def _numbers(capability: str) -> tuple[int, int]:
    """``8.6`` -> (8, 6)."""
    major, dot, minor = capability.partition(".")
    if not (dot and major.isdecimal() and minor.isdecimal()):
        raise EngineError(f"unknown compute capability '{capability}', expected major.minor, such as 8.9")
    return int(major), int(minor)


def _build(
    engine: Engine, runtime: Runtime, capability: str, profile: BatchProfile, model_bytes: bytes
) -> tuple[bytes, BuilderLog]:
    """Parse and build; returns the plan and the log of the build."""
    polygraphy_trt: Any = import_module("polygraphy.backend.trt")
    exception: Any = import_module("polygraphy.exception")

    def build(monitor: Any) -> bytes:
        builder, network, parser = polygraphy_trt.network_from_onnx_bytes(model_bytes, strongly_typed=True)
        config = _builder_config(engine, runtime, capability, profile, monitor)(builder, network)
        # Both libraries have TF32 on unless it is cleared, and Polygraphy clears it for TensorRT only.
        change_flag = config.set_flag if engine.settings.tf32 else config.clear_flag
        change_flag(runtime.module.BuilderFlag.TF32)
        cache = None if runtime.is_rtx else engine.settings.timing_cache
        if cache is not None:
            cache.parent.mkdir(parents=True, exist_ok=True)
        plan = polygraphy_trt.engine_bytes_from_network(
            (builder, network, parser), config, save_timing_cache=None if cache is None else str(cache)
        )
        return bytes(plan)

    with captured_log() as log, warnings.catch_warnings():
        # Polygraphy gives every build a timing cache, for which TensorRT-RTX issues a deprecation warning.
        warnings.simplefilter("ignore", category=DeprecationWarning)
        try:
            return run_cancellable(runtime.module, build), log
        except exception.PolygraphyException as error:
            reason = "; ".join(log.errors[:3]) or str(error)
            raise EngineError(f"{runtime.name} cannot build {relative_to_cwd(engine.onnx)}: {reason}") from error


def _builder_config(
    engine: Engine, runtime: Runtime, capability: str, profile: BatchProfile, monitor: Any
) -> Callable[[Any, Any], Any]:
    """Polygraphy's factory of a builder configuration."""
    trt, settings = runtime.module, engine.settings
    polygraphy_trt: Any = import_module("polygraphy.backend.trt")
    shapes = [(n, IMAGE_SIZE_PX, IMAGE_SIZE_PX, 3) for n in (profile.min, profile.opt, profile.max)]
    options: dict[str, Any] = {
        "profiles": [polygraphy_trt.Profile().add(IMAGE, *shapes)],
        "memory_pool_limits": {trt.MemoryPoolType.WORKSPACE: settings.workspace_mib * _MIB},
        "builder_optimization_level": settings.builder_optimization_level,
        "profiling_verbosity": trt.ProfilingVerbosity.DETAILED,
        "progress_monitor": monitor,
    }
    maker: Callable[[Any, Any], Any]
    if runtime.is_rtx:
        rtx: Any = import_module("polygraphy.backend.tensorrt_rtx")
        maker = rtx.CreateConfigRTX(compute_capabilities=[_numbers(capability)], **options)
    else:
        cache = settings.timing_cache
        maker = polygraphy_trt.CreateConfig(load_timing_cache=None if cache is None else str(cache), **options)
    return maker


def _layers(log: BuilderLog, runtime: Runtime, plan: bytes) -> tuple[EngineLayer, ...]:
    """The engine's layers from the builder's log, or else from the engine itself; empty where neither is readable.

    An unreadable report causes only a warning: building the engine took minutes.
    """
    try:
        return parse_layers(log.layer_text() or _inspector_text(runtime, plan))
    except EngineError as error:
        logging.warning("the engine is built but its layers are not known: %s", error)
        return ()


def _inspector_text(runtime: Runtime, plan: bytes) -> str:
    """Read the layers from the engine itself, if the builder did not log them; needs the GPU that it was built for."""
    polygraphy_trt: Any = import_module("polygraphy.backend.trt")
    exception: Any = import_module("polygraphy.exception")
    with captured_log() as log:
        try:
            inspector = polygraphy_trt.engine_from_bytes(plan).create_engine_inspector()
        except exception.PolygraphyException as error:
            raise EngineError(f"{runtime.name} cannot load it here: {'; '.join(log.errors[:3])}") from error
    return str(inspector.get_engine_information(runtime.module.LayerInformationFormat.ONELINE))
