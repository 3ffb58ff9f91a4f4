"""Reads the Prometheus metrics of Triton that a status needs."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from prometheus_client.parser import text_string_to_metric_families

from ssd_triton.common.errors import ServerError

PENDING = "nv_inference_pending_request_count"
REFUSED = "ssd_refused_requests_total"
MEMORY_AND_LOAD = {
    "nv_cpu_utilization": "cpu_utilization",
    "nv_cpu_memory_used_bytes": "cpu_memory_used_bytes",
    "nv_cpu_memory_total_bytes": "cpu_memory_total_bytes",
    "nv_gpu_utilization": "gpu_utilization",
    "nv_gpu_memory_used_bytes": "gpu_memory_used_bytes",
    "nv_gpu_memory_total_bytes": "gpu_memory_total_bytes",
    "nv_gpu_power_usage": "gpu_power_w",
}
"""Triton's names of gauges, and ours; a gauge of GPUs has one value for each GPU, by UUID."""


@dataclass(frozen=True)
class ServerMetrics:
    """One reading of the metrics.

    Attributes:
        machine: Gauges by our names; a GPU's name has its UUID, as in ``gpu_utilization GPU-1234``.
        pending: Waiting requests, by model.
        refused: Refused requests, by model.
    """

    machine: dict[str, float] = field(default_factory=dict)
    pending: dict[str, int] = field(default_factory=dict)
    refused: dict[str, int] = field(default_factory=dict)


def fetch_metrics(url: str, timeout_s: float) -> ServerMetrics:
    """Read the metrics once.

    Raises:
        ServerError: The address is not an HTTP address, or no metrics answer there.
    """
    if urlsplit(url).scheme not in ("http", "https"):
        raise ServerError(
            f"got {url}, expected the http:// address of Triton's metrics, such as http://host:8002/metrics"
        )
    try:
        with urllib.request.urlopen(url, timeout=timeout_s) as response:  # noqa: S310 - the scheme was checked above
            return _parse(response.read().decode())
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise ServerError(f"no metrics at {url} ({error}): give --metrics-url") from error


def _parse(text: str) -> ServerMetrics:
    metrics = ServerMetrics()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            model = sample.labels.get("model", "")
            if sample.name == PENDING:
                metrics.pending[model] = int(sample.value)
            elif sample.name == REFUSED:
                metrics.refused[model] = int(sample.value)
            elif sample.name in MEMORY_AND_LOAD:
                gpu = sample.labels.get("gpu_uuid")
                name = MEMORY_AND_LOAD[sample.name]
                metrics.machine[f"{name} {gpu}" if gpu else name] = sample.value
    return metrics
