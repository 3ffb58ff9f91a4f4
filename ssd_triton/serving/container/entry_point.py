"""Entry point of the container: chooses a variant, gets its engine, and becomes the server."""

from __future__ import annotations

import os
import resource
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from ssd_triton.common.errors import UserError
from ssd_triton.common.files import relative_to_cwd
from ssd_triton.common.machine import find_gpu
from ssd_triton.config import Config
from ssd_triton.detector.variants import RECOMMENDED
from ssd_triton.serving.container.engine_cache import cached_engine, ensure_engine
from ssd_triton.serving.container.linked_repository import link_repository
from ssd_triton.serving.repository.repository import ModelRepository
from ssd_triton.serving.server.installation import find_triton
from ssd_triton.serving.server.options import descriptor_limit, server_options

AUTO = "auto"
GPU_VARIANT = RECOMMENDED["gpu"]
_STANDARD_STREAMS = 3


@dataclass(frozen=True)
class Prepared:
    """What a container serves.

    Attributes:
        variant: The detector's variant.
        repository: The model repository, with the variant's engine in it.
    """

    variant: str
    repository: Path


def choose_variant(wanted: str, cpu_variant: str) -> str:
    """Resolve ``auto`` to :data:`GPU_VARIANT` if CUDA finds a GPU, else to ``cpu_variant``; keep any other name."""
    if wanted != AUTO:
        return wanted
    return GPU_VARIANT if find_gpu() is not None else cpu_variant


def prepare(config: Config, report: Callable[[str], None], *, compute_capability: str | None = None) -> Prepared:
    """Build the engine of the variant, if it has one, and lay out the model repository to serve.

    Args:
        config: The configuration: ``container`` has the variant, the cache and the folder to lay out, ``tensorrt`` the
            build settings.
        report: Called with one line for each step.
        compute_capability: With TensorRT-RTX, the compute capability of a GPU that is not in this machine, such as
            ``8.9``; None builds for this machine's GPU.

    Raises:
        ConfigError: The repository has no such variant.
        EngineError: The engine cannot be built.
        UserError: An artefact is missing, or the cache cannot be used.
    """
    settings = config.container
    variant = choose_variant(settings.variant, config.variant)
    repository = ModelRepository(config.model_repository)
    model = repository.detector(variant)
    _check_built(repository.postprocess_file(variant), variant)
    plan = None
    if model.backend == "tensorrt":
        engine = cached_engine(repository.engine(variant, config.tensorrt, compute_capability), settings.engine_cache)
        ensure_engine(engine, report, timeout_s=settings.builder_timeout_s)
        plan = engine.path
    else:
        _check_built(repository.detector_file(variant), variant)
    linked = settings.runtime_dir / "model_repository"
    link_repository(repository.path, linked, plan)
    return Prepared(variant, linked)


def _check_built(file: Path, variant: str) -> None:
    if not file.is_file():
        raise UserError(
            f"{relative_to_cwd(file)} is missing, which variant '{variant}' serves: run "
            "'ssd-triton build' before the image is built"
        )


def exec_server(prepared: Prepared, config: Config, extra_options: Sequence[str] = ()) -> NoReturn:
    """Replace this process with ``tritonserver``, so that the server itself receives the container's signals.

    Args:
        prepared: What to serve.
        config: The configuration, whose section ``server`` has the addresses.
        extra_options: Options of ``tritonserver`` after this project's own.

    Raises:
        ServerError: There is no ``tritonserver``.
    """
    runtime_dir = config.container.runtime_dir / "server"
    shutil.rmtree(runtime_dir, ignore_errors=True)
    runtime_dir.mkdir(parents=True)
    triton = find_triton(runtime_dir)
    options = [*server_options(prepared.repository, prepared.variant, config.server), *triton.options, *extra_options]
    # Files that CUDA's driver left open would keep the builder's GPU memory allocated.
    os.closerange(_STANDARD_STREAMS, os.sysconf("SC_OPEN_MAX"))
    resource.setrlimit(resource.RLIMIT_NOFILE, descriptor_limit())
    os.execve(triton.binary, [str(triton.binary), *options], {**os.environ, **triton.environment})  # noqa: S606
