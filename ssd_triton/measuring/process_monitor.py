"""Samples memory, file descriptors and shared memory of a server's processes over time."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

import numpy as np
import psutil

from ssd_triton.client.shared_memory import frame_regions
from ssd_triton.serving.server import EmbeddedServer
from ssd_triton.serving.server.backend_processes import backend_processes

SERVER = "tritonserver"
_MIB = 2**20
_EDGE_FRACTION = 0.1
"""Fraction of the samples after warm-up at each end: growth is the change between the medians of both ends."""
_MIN_EDGE_SAMPLES = 2


@dataclass(frozen=True)
class ProcessSample:
    """One sample of the server.

    Attributes:
        time_s: Time since the traffic began.
        rss_mib: Resident memory by process; stubs are named by their model instance.
        descriptors: Open file descriptors by process.
        shared_memory_files: Number of regions of the server and of the clients in this process.
        shared_memory_mib: Size of the regions.
        requests: Requests answered so far.
        p50_ms: Median latency since the previous sample, by kind; NaN without requests.
        p95_ms: 95th percentile of the same.
    """

    time_s: float
    rss_mib: Mapping[str, float]
    descriptors: Mapping[str, int]
    shared_memory_files: int
    shared_memory_mib: float
    requests: int
    p50_ms: Mapping[str, float]
    p95_ms: Mapping[str, float]

    @property
    def total_rss_mib(self) -> float:
        """Resident memory of all processes together."""
        return sum(self.rss_mib.values())


@dataclass
class ProcessMonitor:
    """Takes samples of a running server.

    Attributes:
        samples: Samples so far.
    """

    server: EmbeddedServer
    samples: list[ProcessSample] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._start_s = time.monotonic()
        self._processes = {SERVER: psutil.Process(self.server.pid), **backend_processes(self.server.pid)}

    def take(self, requests: int, latencies_ms: Mapping[str, Sequence[float]]) -> None:
        """Take a sample.

        Args:
            requests: Requests answered so far.
            latencies_ms: Latencies since the previous sample, by kind.

        Raises:
            ServerError: A process of the server has died.
        """
        self.server.check()
        regions_bytes = [path.stat().st_size for path in [*self.server.shared_memory(), *frame_regions(os.getpid())]]
        self.samples.append(
            ProcessSample(
                time.monotonic() - self._start_s,
                {name: process.memory_info().rss / _MIB for name, process in self._processes.items()},
                {name: process.num_fds() for name, process in self._processes.items()},
                len(regions_bytes),
                sum(regions_bytes) / _MIB,
                requests,
                {kind: percentile(values, 50) for kind, values in latencies_ms.items()},
                {kind: percentile(values, 95) for kind, values in latencies_ms.items()},
            )
        )


@dataclass(frozen=True)
class Growth:
    """Resident memory after warm-up and at the end."""

    before_mib: float
    after_mib: float

    @property
    def share(self) -> float:
        """Relative growth; negative when memory has shrunk."""
        return self.after_mib / self.before_mib - 1


def growth(samples: Sequence[ProcessSample], warm_up_fraction: float) -> dict[str, Growth]:
    """Compute the growth of each process after warm-up, and of all together ("all").

    Args:
        samples: Samples in order, at least one.
        warm_up_fraction: Fraction of the run's time that does not count.
    """
    begin_s = samples[-1].time_s * warm_up_fraction
    counted = [sample for sample in samples if sample.time_s >= begin_s]
    edge = min(max(round(len(counted) * _EDGE_FRACTION), _MIN_EDGE_SAMPLES), len(counted))

    def between(first: Sequence[float], last: Sequence[float]) -> Growth:
        return Growth(median(first), median(last))

    first, last = counted[:edge], counted[-edge:]
    result = {
        name: between([one.rss_mib[name] for one in first], [one.rss_mib[name] for one in last])
        for name in samples[0].rss_mib
    }
    result["all"] = between([one.total_rss_mib for one in first], [one.total_rss_mib for one in last])
    return result


def percentile(values_ms: Sequence[float], percent: float) -> float:
    """Return a percentile; NaN without values."""
    return float(np.percentile(values_ms, percent)) if values_ms else float("nan")
