"""Collects the state of a server, over either protocol."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from typing import Any

from ssd_triton.client.errors import AccessDeniedError
from ssd_triton.client.transport import Transport
from ssd_triton.common.errors import ServerError
from ssd_triton.common.model_names import DETECTOR
from ssd_triton.detector.variants import variant_name
from ssd_triton.serving.status.metrics import ServerMetrics, fetch_metrics

STAGES = ("queue", "compute_input", "compute_infer", "compute_output")
"""The stages of a request that Triton times: the queue, gathering inputs, the model itself, handing out outputs."""


@dataclass(frozen=True)
class ModelStatus:
    """One version of one model, with counts since it was loaded.

    Attributes:
        name: The model's name.
        version: The version that is served.
        ready: Whether it takes requests.
        reason: The server's reason why it could not be loaded; empty for a loaded model.
        variant: The detector's variant, or its file name if the table of variants lacks it; None for other models.
        instances: Instances, such as ``1 x KIND_CPU``; empty for an ensemble.
        succeeded: Requests that succeeded; Triton includes those that a Python model refused.
        failed: Requests that failed; in an ensemble, Triton counts each refused request twice.
        refused: Refused requests, by the model's own metric; None if it has no such metric.
        images: Images, which are the elements of all batches.
        executions: Runs of the model; images / executions is the mean batch size.
        pending: Requests that wait; None without metrics.
        time_ns: Total time of all succeeded requests, by stage, with ``request`` for all stages together.
    """

    name: str
    version: str
    ready: bool
    reason: str
    variant: str | None
    instances: str
    succeeded: int
    failed: int
    refused: int | None
    images: int
    executions: int
    pending: int | None
    time_ns: dict[str, int]

    def since(self, earlier: ModelStatus) -> ModelStatus:
        """Return the status with counts and times since an earlier status."""
        counts = ("succeeded", "failed", "images", "executions")
        changed = {name: getattr(self, name) - getattr(earlier, name) for name in counts}
        if any(count < 0 for count in changed.values()):  # the server was restarted
            return self
        refused = None if self.refused is None or earlier.refused is None else self.refused - earlier.refused
        times = {stage: ns - earlier.time_ns[stage] for stage, ns in self.time_ns.items()}
        return dataclasses.replace(self, **changed, refused=refused, time_ns=times)

    def mean_ms(self, stage: str) -> float | None:
        """Return the mean time of a stage, or of ``request``, over succeeded requests; None if there are none."""
        return self.time_ns[stage] / self.succeeded / 1e6 if self.succeeded else None


@dataclass(frozen=True)
class ServerStatus:
    """The state of a server at one time.

    Attributes:
        url: The address.
        version: Triton's version.
        ready: Whether the server and all of its models are ready.
        monotonic_s: Time of collection on the monotonic clock, for rates between two statuses.
        models: The models, sorted by name.
        metrics: The metrics; None if they could not be read.
        problems: What could not be read, one line each.
    """

    url: str
    version: str
    ready: bool
    monotonic_s: float
    models: tuple[ModelStatus, ...]
    metrics: ServerMetrics | None
    problems: tuple[str, ...]


def collect(
    transport: Transport, url: str, *, metrics_url: str | None, timeout_s: float, admin_key: str | None = None
) -> ServerStatus:
    """Collect the state of a server once.

    Args:
        transport: The connection to the server.
        url: Its address, which the status repeats.
        metrics_url: The address of its metrics; None leaves them out.
        timeout_s: Deadline for the metrics.
        admin_key: Key for the list of all models, which includes those that could not be loaded.

    Raises:
        ClientError: The server does not answer.
    """
    problems = []
    metrics = None
    if metrics_url is not None:
        try:
            metrics = fetch_metrics(metrics_url, timeout_s)
        except ServerError as error:
            problems.append(str(error))
    version = transport.server_version()
    index: list[dict[str, Any]] = []
    try:
        index = transport.repository_index(admin_key)
    except AccessDeniedError:
        problems.append("models that could not be loaded are not listed: that takes --admin-key-file")
    loaded = [_loaded(transport, entry, metrics) for entry in transport.statistics()]
    names = {model.name for model in loaded}
    missing = [_missing(entry) for entry in index if entry["name"] not in names]
    models = tuple(sorted((*loaded, *missing), key=lambda model: model.name))
    ready = transport.is_server_ready() and all(model.ready for model in models)
    return ServerStatus(url, version, ready, time.monotonic(), models, metrics, tuple(problems))


def _loaded(transport: Transport, entry: dict[str, Any], metrics: ServerMetrics | None) -> ModelStatus:
    name, statistics = entry["name"], entry["inference_stats"]
    config = transport.model_config(name)
    groups = config.get("instance_group", []) if config.get("platform") != "ensemble" else []
    file = config.get("default_model_filename")
    times = {stage: _integer(statistics.get(stage, {}), "ns") for stage in STAGES}
    return ModelStatus(
        name=name,
        version=str(entry["version"]),
        ready=transport.is_ready(name),
        reason="",
        variant=variant_name(file) if name == DETECTOR and file else None,
        instances=", ".join(f"{group['count']} x {group['kind']}" for group in groups),
        succeeded=_integer(statistics["success"], "count"),
        failed=_integer(statistics["fail"], "count"),
        refused=metrics.refused.get(name) if metrics else None,
        images=_integer(entry, "inference_count"),
        executions=_integer(entry, "execution_count"),
        pending=metrics.pending.get(name) if metrics else None,
        time_ns={**times, "request": _integer(statistics["success"], "ns")},
    )


def _missing(entry: dict[str, Any]) -> ModelStatus:
    return ModelStatus(
        name=entry["name"],
        version=str(entry.get("version", "")),
        ready=False,
        reason=f"{entry.get('state', 'not loaded')}: {entry.get('reason', 'no reason given')}",
        variant=None,
        instances="",
        succeeded=0,
        failed=0,
        refused=None,
        images=0,
        executions=0,
        pending=None,
        time_ns=dict.fromkeys((*STAGES, "request"), 0),
    )


def _integer(values: dict[str, Any], key: str) -> int:
    """Read a number from protobuf's JSON: zeros are left out, and 64-bit numbers are text."""
    return int(values.get(key, 0))
