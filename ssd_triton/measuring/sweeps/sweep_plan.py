"""Plans a sweep: checks everything before a server starts."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ssd_triton.client import DetectorClient
from ssd_triton.common.files import relative_to_cwd, sha256_of
from ssd_triton.common.machine import find_gpus
from ssd_triton.common.model_names import DETECTOR
from ssd_triton.config import Config
from ssd_triton.detector.variants import VARIANTS, variant_name
from ssd_triton.measuring.sweeps.errors import SweepError
from ssd_triton.measuring.sweeps.model_inputs import Inputs, make_inputs, read_images
from ssd_triton.measuring.sweeps.perf_analyzer import check_installed
from ssd_triton.measuring.sweeps.sweep_file import BARE, DEFAULT_SETTING, Point, Sweep, points
from ssd_triton.measuring.sweeps.tuning import tuned_repository
from ssd_triton.serving.repository.ensure import ensure_built_if_possible
from ssd_triton.serving.repository.repository import ModelRepository
from ssd_triton.serving.server import EmbeddedServer

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Endpoints:
    """Addresses of a running server.

    Attributes:
        grpc: ``host:port``, for loads and statistics.
        http: ``host:port``, for loads over HTTP.
        metrics: ``host:port/metrics``, for figures of the GPU.
    """

    grpc: str
    http: str | None = None
    metrics: str | None = None


@dataclass(frozen=True)
class SweepPlan:
    """A sweep that can be run.

    Attributes:
        sweep: The content of the sweep file.
        points: Points of one round, in the order in which they are measured.
        inputs: Inputs by model.
        skipped: Reasons for variants that do not run here, by variant.
        fingerprint: JSON values that all results have in common.
    """

    sweep: Sweep
    points: Sequence[Point]
    inputs: dict[str, Inputs]
    skipped: dict[str, str] = field(default_factory=dict)
    fingerprint: dict[str, Any] = field(default_factory=dict)


def make_plan(sweep: Sweep, config: Config, endpoints: Endpoints | None = None) -> SweepPlan:
    """Check that a sweep can be run here, and build the artefacts that are out of date.

    Args:
        sweep: The content of the sweep file.
        config: The project's configuration.
        endpoints: Addresses of a running server; None starts one for each variant and setting.

    Raises:
        SweepError: A variant cannot run here, a model or parameter of a setting does not exist, there is no GPU for a
            sweep that needs one, or the running server does not serve the variant or model of the sweep.
        PerfAnalyzerError: ``perf_analyzer`` is not installed.
    """
    check_installed()
    images = read_images(sweep.images, sweep.num_images)
    inputs: dict[str, Inputs] = {
        model: make_inputs(model, images, sweep.frame_size_px)
        for model in dict.fromkeys(load.model for load in sweep.loads)
    }
    skipped: dict[str, str] = {}
    if endpoints is None:
        chosen, skipped = _variants_here(sweep, config)
        _check_settings(sweep, config)
    else:
        chosen = [_served_variant(sweep, endpoints)]
    planned = [point for variant in chosen for point in points(sweep, variant)]
    if endpoints is not None:
        planned = [point for point in planned if point.model != BARE]
        if endpoints.http is None and any(point.protocol == "http" for point in planned):
            raise SweepError("the sweep has loads over HTTP, and --url is gRPC's address: give --http-url, too")
    repository = ModelRepository(config.model_repository)
    files = {variant: repository.detector_file(variant) for variant in chosen}
    fingerprint = {
        "sweep": sweep.model_dump(mode="json", exclude={"description"}),
        "artefacts": {variant: sha256_of(path) for variant, path in files.items() if path.is_file()},
        "url": None if endpoints is None else endpoints.grpc,
    }
    return SweepPlan(sweep, planned, inputs, skipped, fingerprint)


@contextmanager
def serving(config: Config, point: Point, sweep: Sweep, log_path: Path) -> Iterator[EmbeddedServer]:
    """Start a server for a point's variant and setting, on free ports."""
    with tempfile.TemporaryDirectory(prefix="ssd-triton-sweep-") as folder:
        repository = config.model_repository
        if point.setting != DEFAULT_SETTING:
            repository = tuned_repository(repository, sweep.settings[point.setting], Path(folder) / "model_repository")
        settings = config.server.for_one_run()
        with EmbeddedServer(repository, point.variant, settings, log_path=log_path) as server:
            yield server


def _variants_here(sweep: Sweep, config: Config) -> tuple[list[str], dict[str, str]]:
    if sweep.target == "gpu" and not find_gpus():
        raise SweepError(
            "the sweep needs a GPU, and CUDA offers none on this machine: take one of perf/sweeps/cpu*.yml, or name a "
            "server with --url"
        )
    known = ModelRepository(config.model_repository).variants
    # On a CPU, only variants that run in their own precision there.
    on_cpu = [one.name for one in VARIANTS.values() if one.precisions.get("cpu") == one.precision]
    chosen = list(sweep.variants or (known if sweep.target == "gpu" else on_cpu))
    unknown = [variant for variant in chosen if variant not in known]
    if unknown:
        raise SweepError(f"variants: got '{unknown[0]}', expected some of {', '.join(known)}")
    available, skipped = [], {}
    for variant in chosen:
        reason = _unavailable_because(config, variant)
        if reason is None:
            available.append(variant)
        elif sweep.variants is None:
            skipped[variant] = reason
            _log.info("skipping %s: %s", variant, reason)
        else:
            raise SweepError(f"variants: {variant} does not run here: {reason}")
    if not available:
        raise SweepError("no variant runs here: build the artefacts with 'ssd-triton build'")
    return available, skipped


def _unavailable_because(config: Config, variant: str) -> str | None:
    from ssd_triton.serving.repository.build import artefacts

    reason = artefacts(config, only=[variant])[-1].unavailable_because()
    if reason is not None:
        return reason
    ensure_built_if_possible(config, variant, _log.info)
    path = ModelRepository(config.model_repository).detector_file(variant)
    missing = f"{relative_to_cwd(path)} is missing: build it with 'ssd-triton build'"
    return None if path.is_file() else missing


def _check_settings(sweep: Sweep, config: Config) -> None:
    with tempfile.TemporaryDirectory(prefix="ssd-triton-sweep-") as folder:
        for number, setting in enumerate(sweep.settings.values()):
            tuned_repository(config.model_repository, setting, Path(folder) / str(number))


def _served_variant(sweep: Sweep, endpoints: Endpoints) -> str:
    if sweep.settings:
        raise SweepError("the sweep compares settings, for which servers are started: run it without --url")
    with DetectorClient(endpoints.grpc, timeout_s=10, use_shared_memory=False) as client:
        served = variant_name(str(client.model_config(DETECTOR).get("default_model_filename")))
    if sweep.variants is not None and served not in sweep.variants:
        raise SweepError(f"{endpoints.grpc} serves {served}, and the sweep is about {', '.join(sweep.variants)}")
    return served
