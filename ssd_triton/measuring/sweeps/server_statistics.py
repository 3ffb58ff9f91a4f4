"""Reads the time that a server spends in each model from Triton's own counters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import tritonclient.grpc as grpc_client
from tritonclient.utils import InferenceServerException

from ssd_triton.client.causes import from_grpc_error

_NS_PER_MS = 1e6
Counters = Mapping[str, Any]
"""Statistics of every model by name, as in Triton's message."""


@dataclass(frozen=True)
class Stage:
    """One model that a request passes through: means over a measurement, in milliseconds for a request.

    Attributes:
        model: Its name.
        requests: Requests that succeeded, including those of unstable windows.
        batch: Mean number of images that ran together.
        total_ms: Time from arrival to answer.
        queue_ms: Time in the queue.
        input_ms: Time for gathering input tensors.
        infer_ms: Time of the whole batch that a request belongs to, not its share.
        output_ms: Time for handing out output tensors.
        work_ms: Working time of all instances divided by the number of requests: a batch counts once.
        instances: Instances of the model on the server; 0 where unknown.
    """

    model: str
    requests: int
    batch: float
    total_ms: float
    queue_ms: float
    input_ms: float
    infer_ms: float
    output_ms: float
    work_ms: float
    instances: int = 0

    @property
    def compute_ms(self) -> float:
        """Time outside the queue."""
        return self.input_ms + self.infer_ms + self.output_ms


class ServerStatistics:
    """Reads a server's counters over gRPC."""

    def __init__(self, url: str, timeout_s: float) -> None:
        """Prepare; nothing is sent yet.

        Args:
            url: gRPC address.
            timeout_s: Deadline of a call.
        """
        self._url, self._timeout_s = url, timeout_s
        self._client = grpc_client.InferenceServerClient(url)

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def counters(self) -> Counters:
        """Read the counters.

        Raises:
            ClientError: The server does not answer.
        """
        try:
            statistics = self._client.get_inference_statistics(client_timeout=self._timeout_s)
        except InferenceServerException as error:
            raise from_grpc_error(error, self._url) from error
        return {model.name: model for model in statistics.model_stats}


def stages(before: Counters, after: Counters, instances: Mapping[str, int] | None = None) -> tuple[Stage, ...]:
    """Compute what every model did between two readings, without models that had no requests.

    Args:
        before: The first reading.
        after: The second reading.
        instances: Number of instances by model.
    """
    found = []
    for name, now in after.items():
        then = before.get(name)
        requests = _difference(now, then, "inference_stats.success.count")
        if requests == 0:
            continue

        def per_request_ms(counter: str, now: Any = now, then: Any = then, requests: int = requests) -> float:
            return _difference(now, then, f"inference_stats.{counter}.ns") / requests / _NS_PER_MS

        executions = _difference(now, then, "execution_count")
        images = _difference(now, then, "inference_count")
        found.append(
            Stage(
                name,
                requests,
                # Ensembles execute nothing themselves.
                images / executions if executions else 0.0,
                per_request_ms("success"),
                per_request_ms("queue"),
                per_request_ms("compute_input"),
                per_request_ms("compute_infer"),
                per_request_ms("compute_output"),
                (_work_ns(now) - (0 if then is None else _work_ns(then))) / requests / _NS_PER_MS,
                (instances or {}).get(name, 0),
            )
        )
    return tuple(found)


def count_instances(config: Mapping[str, Any]) -> int:
    """Count the instances of a model by the configuration that the server loaded; an ensemble has none."""
    groups = config.get("instance_group", ())
    return sum(int(group["count"]) * max(1, len(group.get("gpus", ()))) for group in groups)


def _difference(now: Any, then: Any, counter: str) -> int:
    return _value(now, counter) - (0 if then is None else _value(then, counter))


def _work_ns(statistics: Any) -> int:
    """Return the time of all executions, whatever their batch size."""
    return sum(one.compute_input.ns + one.compute_infer.ns + one.compute_output.ns for one in statistics.batch_stats)


def _value(statistics: Any, counter: str) -> int:
    for part in counter.split("."):
        statistics = getattr(statistics, part)
    return int(statistics)
