"""Runs a sweep: one server after another, ``perf_analyzer`` for every load, and every result is kept at once."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import groupby
from math import ceil
from pathlib import Path
from statistics import median

from tqdm import tqdm

from ssd_triton.client import DetectorClient
from ssd_triton.common.machine import environment
from ssd_triton.common.processes import tree_cpu_s
from ssd_triton.config import Config
from ssd_triton.measuring.sweeps.measurements import Measurement, SweepFolder
from ssd_triton.measuring.sweeps.model_inputs import OUTPUTS
from ssd_triton.measuring.sweeps.perf_analyzer import Load, PerfAnalyzerError, UnstableError, measure
from ssd_triton.measuring.sweeps.server_statistics import ServerStatistics, count_instances, stages
from ssd_triton.measuring.sweeps.sweep_file import BARE, Point
from ssd_triton.measuring.sweeps.sweep_plan import Endpoints, SweepPlan, serving

_log = logging.getLogger(__name__)
_BARE_TURNS = 4
_MS_PER_S = 1e3
_STATISTICS_TIMEOUT_S = 10.0
RAW = "raw"
"""Folder for the output of ``perf_analyzer`` and the logs of the servers."""


@dataclass(frozen=True)
class _Target:
    """A running server.

    Attributes:
        endpoints: Its addresses.
        check: Raises ServerError when the server has died.
        statistics: Its counters.
        instances: Number of instances by model.
        pid: Its process id, if this sweep started it.
    """

    endpoints: Endpoints
    check: Callable[[], None]
    statistics: ServerStatistics
    instances: Mapping[str, int]
    pid: int | None

    def cpu_s(self) -> float:
        """Return the CPU time of its processes so far; 0 if they are unknown."""
        return 0.0 if self.pid is None else tree_cpu_s(self.pid)


def run_sweep(
    plan: SweepPlan, config: Config, folder: Path, *, endpoints: Endpoints | None = None, restart: bool = False
) -> list[Measurement]:
    """Measure what the folder lacks; the loop over rounds is outermost, so that everything is measured in turns.

    Args:
        plan: What to measure.
        config: The project's configuration.
        folder: Folder of the results, and of the output of ``perf_analyzer``.
        endpoints: Addresses of a running server; None starts one for each variant and setting.
        restart: Whether to drop existing results.

    Returns:
        All measurements, including those of earlier runs.

    Raises:
        ServerError: A server does not start or dies; earlier measurements are kept.
        ClientError: A running server has stopped answering.
        JournalError: The folder holds results of another sweep, or cannot be written to.
    """
    with SweepFolder(folder, plan.fingerprint, restart=restart) as results:
        done = {(one.round, one.point) for one in results.measurements}
        todo = [
            (number, point)
            for number in range(1, plan.sweep.rounds + 1)
            for point in plan.points
            if (number, point) not in done
        ]
        total = plan.sweep.rounds * len(plan.points)
        bar = tqdm(total=total, initial=total - len(todo), desc="sweep", unit=" runs", disable=None, smoothing=0.1)
        with bar:
            for (number, _, _), group in groupby(todo, key=lambda one: (one[0], one[1].variant, one[1].setting)):
                points = [point for _, point in group]
                for found in _ServerTurn(plan, config, folder, results, endpoints).measure(number, points):
                    results.add(found)
                    bar.update()
                    if found.status != "ok":
                        _log.info("%s: %s (%s)", found.point, found.status, found.note)
        return results.measurements


class _ServerTurn:
    """The points of a round that share a server."""

    def __init__(
        self, plan: SweepPlan, config: Config, folder: Path, results: SweepFolder, endpoints: Endpoints | None
    ) -> None:
        self._plan, self._config, self._folder = plan, config, folder
        self._results, self._endpoints = results, endpoints

    def measure(self, number: int, points: list[Point]) -> Iterator[Measurement]:
        with ExitStack() as stack:
            served = [point for point in points if point.model != BARE]
            target = self._target(stack, points[0], number) if served else None
            for point in points:
                if target is None or point.model == BARE:
                    yield self._bare(number, point)
                else:
                    yield self._served(number, point, target)

    def _target(self, stack: ExitStack, point: Point, number: int) -> _Target:
        endpoints = self._endpoints
        if endpoints is None:
            name = f"tritonserver {_file_name(f'{point.variant} {point.setting}')} {number}.log"
            server = stack.enter_context(serving(self._config, point, self._plan.sweep, self._folder / RAW / name))
            metrics = f"{server.config.host}:{server.config.metrics_port}/metrics"
            on_gpu = self._plan.sweep.target == "gpu"
            endpoints = Endpoints(server.url("grpc"), server.url("http"), metrics if on_gpu else None)
            check, pid = server.check, server.pid
        else:
            check, pid = (lambda: None), None
        statistics = ServerStatistics(endpoints.grpc, _STATISTICS_TIMEOUT_S)
        stack.callback(statistics.close)
        with DetectorClient(endpoints.grpc, timeout_s=_STATISTICS_TIMEOUT_S, use_shared_memory=False) as client:
            version = client.server_version()
            instances = {name: count_instances(client.model_config(name)) for name in statistics.counters()}
        facts = {"description": self._plan.sweep.description, "tritonserver": version, "environment": environment()}
        self._results.write_facts({**facts, "skipped": self._plan.skipped})
        return _Target(endpoints, check, statistics, instances, pid)

    def _served(self, number: int, point: Point, target: _Target) -> Measurement:
        found = Measurement(point, number)
        if point.rate_share is not None:
            rate = self._rate(point)
            if rate is None:
                return replace(found, status="failed", note="no stable measurement to take a share of")
            found = replace(found, request_rate=rate)
        before, cpu_s = target.statistics.counters(), target.cpu_s()
        try:
            figures = measure(
                self._load(point, target.endpoints, found.request_rate),
                timeout_s=self._plan.sweep.window.timeout_s,
                keep=self._folder / RAW / _file_name(f"{point} {number}"),
            )
        except UnstableError as error:
            found = replace(found, status="unstable", note=str(error))
        except PerfAnalyzerError as error:
            # If the server is dead, that is the reason to report: these calls raise it.
            target.check()
            target.statistics.counters()
            found = replace(found, status="failed", note=str(error))
        else:
            found = replace(found, **vars(figures))
        cpu_s = target.cpu_s() - cpu_s
        found = replace(found, stages=stages(before, target.statistics.counters(), target.instances))
        images = sum(stage.requests * point.batch for stage in found.stages if stage.model == point.model)
        return replace(found, cpu_ms=cpu_s * _MS_PER_S / images if images and cpu_s else None)

    def _load(self, point: Point, endpoints: Endpoints, request_rate: float | None) -> Load:
        window, inputs = self._plan.sweep.window, self._plan.inputs[point.model]
        slots = point.concurrency if point.rate_share is None else 1
        url = endpoints.grpc if point.protocol == "grpc" else str(endpoints.http)
        return Load(
            point.model,
            url,
            inputs.elements,
            point.concurrency,
            max(window.requests_per_slot * slots, ceil((window.images or 1) / point.batch)),
            window_s=window.seconds,
            batch=point.batch,
            protocol="grpc" if point.protocol == "grpc" else "http",
            shared_memory=point.shared_memory,
            request_rate=request_rate,
            shapes=inputs.shapes,
            outputs=OUTPUTS[point.model],
            metrics_url=endpoints.metrics,
            stability_percent=window.stability_percent,
            max_trials=window.max_trials,
        )

    def _rate(self, point: Point) -> float | None:
        """Return the requests a second: the rate of the first round, so that it is the same in all rounds."""
        kept = self._results.measurements
        earlier = [one.request_rate for one in kept if one.point == point and one.request_rate]
        if earlier:
            return earlier[0]
        closed_loop = replace(point, rate_share=None)
        saturated = [one.images_per_s for one in kept if one.point == closed_loop and one.status == "ok"]
        share = point.rate_share or 0.0
        return share * median(saturated) / point.batch if saturated else None

    def _bare(self, number: int, point: Point) -> Measurement:
        import torch

        from ssd_triton.measuring.benchmark.run import benchmark
        from ssd_triton.serving.runnable import runnable_variant

        device = torch.device("cuda", 0) if self._plan.sweep.target == "gpu" else torch.device("cpu")
        variant = runnable_variant(self._config, point.variant, device)
        [found] = benchmark([variant], [point.batch], _BARE_TURNS, device)
        return Measurement(
            point,
            number,
            # From the mean, since perf_analyzer's figure is the mean of a window, too.
            images_per_s=point.batch / found.mean_ms * 1e3,
            mean_ms=found.mean_ms,
            p50_ms=found.p50_ms,
            p95_ms=found.p95_ms,
            p99_ms=found.p99_ms,
        )


def _file_name(text: str) -> str:
    return re.sub(r"[^\w.]+", "_", text)
