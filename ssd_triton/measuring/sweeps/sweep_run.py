"""Running a sweep: servers one after the other, ``perf_analyzer`` for every load, results kept as they come."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import groupby
from math import ceil
from pathlib import Path
from statistics import median

from tqdm import tqdm

from ssd_triton.client import DetectorClient
from ssd_triton.config import Config
from ssd_triton.evaluation.environment import environment
from ssd_triton.measuring.sweeps.inputs import OUTPUTS
from ssd_triton.measuring.sweeps.perf_analyzer import Load, PerfAnalyzerError, UnstableError, measure
from ssd_triton.measuring.sweeps.results import ResultsFolder, Row
from ssd_triton.measuring.sweeps.server_statistics import ServerStatistics, stages
from ssd_triton.measuring.sweeps.sweep_file import BARE, Point
from ssd_triton.measuring.sweeps.sweep_plan import Endpoints, Plan, serving

_log = logging.getLogger(__name__)
_BARE_TURNS = 4
_STATISTICS_TIMEOUT_S = 10.0
RAW = "raw"
"""Folder for what ``perf_analyzer`` wrote and printed, and for the servers' logs."""


@dataclass(frozen=True)
class _Target:
    """A running server, and how to tell whether it still runs."""

    endpoints: Endpoints
    check: Callable[[], None]
    statistics: ServerStatistics


def run_sweep(
    plan: Plan, config: Config, folder: Path, *, endpoints: Endpoints | None = None, restart: bool = False
) -> list[Row]:
    """Measure what the folder lacks; rounds are outermost, so that everything is measured in turns.

    Args:
        plan: What to measure.
        config: The project's configuration.
        folder: Keeps the results, and what ``perf_analyzer`` wrote.
        endpoints: Of a server that runs already; None starts one for each variant and setting.
        restart: Drop the results that are there.

    Returns:
        All measurements, those of earlier runs included.

    Raises:
        ServerError: A server does not start or dies; what was measured is kept.
        ClientError: A server that runs already does not answer any more.
        SweepError: The folder holds results of something else, or cannot be written to.
    """
    with ResultsFolder(folder, plan.fingerprint, restart=restart) as results:
        done = {(row.round, row.point) for row in results.rows}
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
                for row in _Group(plan, config, folder, results, endpoints).measure(number, points):
                    results.add(row)
                    bar.update()
                    if row.status != "ok":
                        _log.info("%s: %s (%s)", row.point, row.status, row.note)
        return results.rows


class _Group:
    """The points of a round that share a server."""

    def __init__(
        self, plan: Plan, config: Config, folder: Path, results: ResultsFolder, endpoints: Endpoints | None
    ) -> None:
        self._plan, self._config, self._folder = plan, config, folder
        self._results, self._endpoints = results, endpoints

    def measure(self, number: int, points: list[Point]) -> Iterator[Row]:
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
            log_path = (
                self._folder / RAW / f"tritonserver {_file_name(f'{point.variant} {point.setting}')} {number}.log"
            )
            server = stack.enter_context(serving(self._config, point, self._plan.sweep, log_path))
            metrics = f"{server.config.host}:{server.metrics_port}/metrics"
            on_gpu = self._plan.sweep.target == "gpu"
            endpoints = Endpoints(server.url("grpc"), server.url("http"), metrics if on_gpu else None)
            check = server.check
        else:
            check = lambda: None  # noqa: E731 - the statistics tell when it is gone
        self._write_facts(endpoints)
        statistics = ServerStatistics(endpoints.grpc, _STATISTICS_TIMEOUT_S)
        stack.callback(statistics.close)
        return _Target(endpoints, check, statistics)

    def _write_facts(self, endpoints: Endpoints) -> None:
        with DetectorClient(endpoints.grpc, timeout_s=_STATISTICS_TIMEOUT_S, use_shared_memory=False) as client:
            version = client.server_version()
        sweep = self._plan.sweep
        self._results.write_facts(
            {
                "description": sweep.description,
                "tritonserver": version,
                "environment": environment(),
                "skipped": self._plan.skipped,
            }
        )

    def _served(self, number: int, point: Point, target: _Target) -> Row:
        row = Row(point, number)
        if point.rate_share is not None:
            rate = self._rate(point)
            if rate is None:
                return replace(row, status="failed", note="no stable measurement to take a share of")
            row = replace(row, request_rate=rate)
        before = target.statistics.counters()
        try:
            found = measure(
                self._load(point, target.endpoints, row.request_rate),
                timeout_s=self._plan.sweep.window.timeout_s,
                keep=self._folder / RAW / _file_name(f"{point} {number}"),
            )
        except UnstableError as error:
            row = replace(row, status="unstable", note=str(error))
        except PerfAnalyzerError as error:
            # When the server has died, that is the reason to tell.
            target.check()
            target.statistics.counters()
            row = replace(row, status="failed", note=str(error))
        else:
            row = replace(row, **vars(found))
        return replace(row, stages=stages(before, target.statistics.counters()))

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
        """Requests a second: that of the first round, so that all rounds have the same."""
        earlier = [row.request_rate for row in self._results.rows if row.point == point and row.request_rate]
        if earlier:
            return earlier[0]
        saturated = [
            row.images_per_s
            for row in self._results.rows
            if row.point == replace(point, rate_share=None) and row.status == "ok"
        ]
        share = point.rate_share or 0.0
        return share * median(saturated) / point.batch if saturated else None

    def _bare(self, number: int, point: Point) -> Row:
        import torch

        from ssd_triton.measuring.benchmark.measure import benchmark
        from ssd_triton.serving.runnable import runnable_variant

        device = torch.device("cuda", 0) if self._plan.sweep.target == "gpu" else torch.device("cpu")
        variant = runnable_variant(self._config, point.variant, device)
        [found] = benchmark([variant], [point.batch], _BARE_TURNS, device)
        return Row(
            point,
            number,
            # perf_analyzer's figure is the mean of a window, too.
            images_per_s=point.batch / found.mean_ms * 1e3,
            mean_ms=found.mean_ms,
            p50_ms=found.p50_ms,
            p95_ms=found.p95_ms,
            p99_ms=found.p99_ms,
        )


def _file_name(text: str) -> str:
    return re.sub(r"[^\w.]+", "_", text)
