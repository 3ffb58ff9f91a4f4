"""Summarizes the rounds of a sweep as one median for each point, with a band for its noise."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, median, stdev

from ssd_triton.measuring.sweeps.measurements import Measurement
from ssd_triton.measuring.sweeps.server_statistics import Stage
from ssd_triton.measuring.sweeps.sweep_file import Point

METRICS = ("images_per_s", "mean_ms", "p50_ms", "p95_ms", "p99_ms")
_STANDARD_ERRORS = 3.0
_MEDIAN_OVER_MEAN = math.sqrt(math.pi / 2)
"""Ratio of the standard errors of median and mean, for many normally distributed values."""
_MIN_RATE_SHARE = 0.8
"""Least share of the requested rate: a load that falls further behind is not sent at even intervals."""
BAND = (
    "Bands are three standard errors of the median over the rounds. The deviation of a round is taken as the larger of "
    "the point's own and the root mean square of all points': few rounds alone are not enough."
)


@dataclass(frozen=True)
class Median:
    """A median over rounds, with a band relative to it, or None after a single round, which shows no noise."""

    value: float
    band: float | None

    @property
    def low(self) -> float:
        """Lower end of the band."""
        return self.value * math.exp(-(self.band or 0.0))

    @property
    def high(self) -> float:
        """Upper end of the band."""
        return self.value * math.exp(self.band or 0.0)


@dataclass(frozen=True)
class PointSummary:
    """All rounds of a point.

    Attributes:
        point: What was measured.
        stable_rounds: Number of rounds with figures; only these count.
        rounds: Number of all rounds.
        note: Reason why the last round without a figure has none; empty if all rounds have one.
        request_rate: Requests sent a second, for loads at even intervals.
        figures: Medians by metric, see :data:`METRICS`; empty without a stable round.
        stages: Times by model, means over the stable rounds.
        cpu_ms: CPU time of the server for an image, median.
    """

    point: Point
    stable_rounds: int
    rounds: int
    note: str
    request_rate: float | None
    figures: Mapping[str, Median]
    stages: tuple[Stage, ...]
    cpu_ms: float | None = None

    @property
    def images_per_s(self) -> float:
        """Median throughput."""
        return self.figures["images_per_s"].value


def summarize(rows: Sequence[Measurement]) -> list[PointSummary]:
    """Summarize the rounds of each point, in the order in which the points were first measured."""
    by_point: dict[Point, list[Measurement]] = {}
    for row in map(_judged, rows):
        by_point.setdefault(row.point, []).append(row)
    stable = {point: [row for row in group if row.status == "ok"] for point, group in by_point.items()}
    typical = {metric: _typical_deviation(stable.values(), metric) for metric in METRICS}
    summaries = []
    for point, group in by_point.items():
        good = stable[point]
        notes = [f"{row.status}: {row.note}" for row in group if row.status != "ok"]
        summaries.append(
            PointSummary(
                point,
                len(good),
                len(group),
                notes[-1] if notes else "",
                next((row.request_rate for row in group if row.request_rate), None),
                {metric: _figure(good, metric, typical[metric]) for metric in METRICS} if good else {},
                _mean_stages(good),
                median(cpu_ms) if (cpu_ms := [row.cpu_ms for row in good if row.cpu_ms is not None]) else None,
            )
        )
    return summaries


def _judged(row: Measurement) -> Measurement:
    """Discard the figure of a measurement whose requests were not sent at the requested rate."""
    asked = (row.request_rate or 0.0) * row.point.batch
    if row.status != "ok" or row.images_per_s >= _MIN_RATE_SHARE * asked:
        return row
    return replace(row, status="failed", note=f"{row.images_per_s:.0f} images/s were sent instead of {asked:.0f}")


def with_figures(summaries: Iterable[PointSummary]) -> list[PointSummary]:
    """Return the summaries with figures; the report names the others, but leaves them out of its pictures."""
    return [summary for summary in summaries if summary.figures]


def _figure(rows: Sequence[Measurement], metric: str, typical: float | None) -> Median:
    values = [getattr(row, metric) for row in rows]
    if typical is None:
        return Median(median(values), None)
    deviation = max(typical, _deviation(values) or 0.0)
    return Median(median(values), _STANDARD_ERRORS * deviation * _MEDIAN_OVER_MEAN / math.sqrt(len(values)))


def _typical_deviation(groups: Iterable[Sequence[Measurement]], metric: str) -> float | None:
    deviations = [_deviation([getattr(row, metric) for row in group]) for group in groups]
    known = [deviation for deviation in deviations if deviation is not None]
    return math.sqrt(fmean(deviation**2 for deviation in known)) if known else None


def _deviation(values: Sequence[float]) -> float | None:
    """Return the relative standard deviation of a round, in logarithms: a ratio and its inverse then weigh the same."""
    return stdev(math.log(value) for value in values) if len(values) > 1 else None


def _mean_stages(rows: Sequence[Measurement]) -> tuple[Stage, ...]:
    by_model: dict[str, list[Stage]] = {}
    for row in rows:
        for stage in row.stages:
            by_model.setdefault(stage.model, []).append(stage)
    names = ("batch", "total_ms", "queue_ms", "input_ms", "infer_ms", "output_ms", "work_ms")
    return tuple(
        Stage(
            model,
            sum(stage.requests for stage in group),
            **{name: fmean(getattr(stage, name) for stage in group) for name in names},
            instances=group[0].instances,
        )
        for model, group in by_model.items()
    )
