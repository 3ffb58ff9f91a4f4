"""From the start of a container to a running Triton: choose a variant, get its engine, become the server."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from ssd_triton.common.errors import UserError
from ssd_triton.common.files import relative_to_cwd
from ssd_triton.common.machine import find_gpu
from ssd_triton.common.model_names import DETECTOR
from ssd_triton.config import Config
from ssd_triton.serving.container.engine_cache import cached_engine, ensure_engine
from ssd_triton.serving.container.repository import link_repository
from ssd_triton.serving.repository.engines import PRECISION_OF, engine_artefact
from ssd_triton.serving.repository.model_config import postprocess_artefact, variant_config
from ssd_triton.serving.server.bundle import find_bundle
from ssd_triton.serving.server.options import server_options

AUTO = "auto"
GPU_VARIANT = "tensorrt_fp16"
_STANDARD_STREAMS = 3


@dataclass(frozen=True)
class Prepared:
    """What is to be served.

    Attributes:
        variant: Of the detector.
        repository: The model repository, with the variant's engine in it.
    """

    variant: str
    repository: Path


def choose_variant(wanted: str, cpu_variant: str) -> str:
    """``auto`` is :data:`GPU_VARIANT` where CUDA offers a GPU and ``cpu_variant`` elsewhere; any other name is kept."""
    if wanted != AUTO:
        return wanted
    return GPU_VARIANT if find_gpu() is not None else cpu_variant


def prepare(config: Config, report: Callable[[str], None], *, compute_capability: str | None = None) -> Prepared:
    """Build the engine that the variant needs, if it needs one, and lay out the repository to serve.

    Args:
        config: ``container`` says which variant, which cache and where to lay out; ``tensorrt`` how to build.
        report: Takes a line for each step.
        compute_capability: Of a GPU that is not there, such as ``8.9``, for TensorRT-RTX; None is that of the GPU here.

    Raises:
        ConfigError: The repository has no such variant.
        EngineError: The engine cannot be built.
        UserError: An artefact is missing, or the cache cannot be used.
    """
    settings = config.container
    variant = choose_variant(settings.variant, config.variant)
    model = variant_config(config.model_repository, variant)
    _check_built(postprocess_artefact(config.model_repository, variant), variant)
    plan = None
    if variant in PRECISION_OF:
        artefact = engine_artefact(config, variant, compute_capability)
        engine = cached_engine(artefact, settings.engine_cache)
        ensure_engine(engine, report, timeout_s=settings.builder_timeout_s)
        plan = engine.path
    else:
        _check_built(config.model_repository / DETECTOR / "1" / model.default_model_filename, variant)
    repository = settings.runtime_dir / "model_repository"
    link_repository(config.model_repository, repository, plan)
    return Prepared(variant, repository)


def _check_built(file: Path, variant: str) -> None:
    if not file.is_file():
        raise UserError(
            f"{relative_to_cwd(file)} is missing, which variant '{variant}' serves: run "
            "'python tools/build_repository.py' before the image is built"
        )


def exec_server(prepared: Prepared, config: Config, extra_options: Sequence[str] = ()) -> NoReturn:
    """Replace this process by ``tritonserver``, which then gets the container's signals itself.

    Args:
        prepared: What is to be served.
        config: ``server`` says where to listen.
        extra_options: For ``tritonserver``, after this project's own.

    Raises:
        ServerError: There is no ``tritonserver``.
    """
    runtime_dir = config.container.runtime_dir / "server"
    shutil.rmtree(runtime_dir, ignore_errors=True)
    runtime_dir.mkdir(parents=True)
    bundle = find_bundle(runtime_dir)
    options = [*server_options(prepared.repository, prepared.variant, config.server), *bundle.options, *extra_options]
    # CUDA's driver leaves files open, and with them memory of the GPU that the builder used.
    os.closerange(_STANDARD_STREAMS, os.sysconf("SC_OPEN_MAX"))
    os.execve(bundle.binary, [str(bundle.binary), *options], {**os.environ, **bundle.environment})  # noqa: S606
