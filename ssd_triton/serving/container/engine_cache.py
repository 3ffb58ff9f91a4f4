"""A cache of engines that containers share: one container builds an engine, the others use it.

A plan fits one GPU model, one version of the library and one ONNX file. Each combination has its own folder, so that
containers on different GPUs, or of an old and a new release, do not replace each other's engines. A lock beside the
folder lets one builder work at a time; the kernel releases it when a builder is killed.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from ssd_triton.common.errors import UserError
from ssd_triton.common.files import PART, sha256_of
from ssd_triton.common.machine import find_gpu
from ssd_triton.detector.engines.engine import Engine
from ssd_triton.detector.engines.errors import EngineError
from ssd_triton.detector.engines.runtime import load_runtime
from ssd_triton.detector.variants import RECOMMENDED

_DIGEST_DIGITS = 12
_POLL_S = 0.2


def cached_engine(engine: Engine, cache: Path) -> Engine:
    """Return the engine with its paths, and that of TensorRT's timing cache, moved into the cache.

    Args:
        engine: An engine of the model repository.
        cache: The folder that containers share; it need not exist.

    Raises:
        EngineError: It cannot be built here: no GPU, no library, or no ONNX file.
    """
    unavailable = engine.unavailable_because()
    if unavailable is not None:
        raise EngineError(
            f"no engine can be built for {engine.path.stem}: {unavailable}; "
            f"start another variant, such as --variant {RECOMMENDED['cpu']}"
        )
    gpu = find_gpu() if engine.compute_capability is None else None
    target = f"sm{gpu.compute_capability}_{gpu.name}" if gpu else f"sm{engine.compute_capability}"
    runtime = load_runtime(engine.settings.runtime)
    name = f"{runtime.name}-{runtime.version}_{target}_onnx-{sha256_of(engine.onnx)[:_DIGEST_DIGITS]}"
    folder = cache / re.sub(r"[^A-Za-z0-9._-]+", "-", name)
    settings = engine.settings
    if settings.timing_cache is not None:
        settings = settings.model_copy(update={"timing_cache": folder / settings.timing_cache.name})
    return replace(engine, path=folder / engine.path.name, settings=settings)


def ensure_engine(engine: Engine, report: Callable[[str], None], *, timeout_s: float) -> None:
    """Wait for any other container that is building this engine, then build it if it is missing or does not fit.

    Args:
        engine: An engine from :func:`cached_engine`.
        report: Called with one line for each step.
        timeout_s: The longest wait for another builder.

    Raises:
        UserError: The cache cannot be written, or another container has been building for longer than ``timeout_s``.
        EngineError: TensorRT refused to build.
    """
    path = engine.path
    lock = FileLock(
        path.parent.with_name(path.parent.name + ".lock"),
        timeout=timeout_s,
        poll_interval=_POLL_S,
        # A lock by mere existence of a file would outlive a killed builder; a lock file that is deleted can be held
        # twice.
        fallback_to_soft=False,
        preserve_lock_file=True,
    )
    _become_builder(lock, path, report)
    try:
        _remove_leftovers(path.parent)
        reason = engine.stale_because()
        if reason is None:
            report(f"current  {path}")
            return
        report(f"building {path} ({reason})")
        engine.build()
        report(f"built    {path} ({path.stat().st_size / 1e6:.1f} MB)")
    finally:
        lock.release()


def _become_builder(lock: BaseFileLock, path: Path, report: Callable[[str], None]) -> None:
    """Take the lock, if necessary after the container that holds it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            report(f"waiting  {path} (another container holds {lock.lock_file})")
            lock.acquire()
    except Timeout:
        raise UserError(
            f"another container has been building {path} for more than {lock.timeout:g} s: see its log, or wait longer "
            "with --builder-timeout-s"
        ) from None
    except OSError as error:
        raise UserError(
            f"cannot use the engine cache {path.parent.parent} ({error.strerror}): mount a folder there that this user "
            "may write to, or give another one with --engine-cache"
        ) from error


def _remove_leftovers(folder: Path) -> None:
    """Remove unfinished files of builders that were killed; the lock is held, so no other builder is writing them."""
    for part in folder.glob(PART):
        part.unlink()
