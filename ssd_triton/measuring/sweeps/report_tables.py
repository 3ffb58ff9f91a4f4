"""Tables of a sweep: throughput, latency, overhead, settings, and the parts of a request's time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ssd_triton.common.model_names import DETECTOR
from ssd_triton.common.report import Table
from ssd_triton.measuring.sweeps.analysis import (
    ENSEMBLE,
    best_by_batch,
    load_names,
    members,
    network_ms,
    rates_of,
    saturated,
)
from ssd_triton.measuring.sweeps.point_summary import Median, PointSummary
from ssd_triton.measuring.sweeps.sweep_file import BARE, DEFAULT_SETTING

_ANY_BATCH = 65
"""Key for the best rate over all batch sizes, sorted after them; dynamic batching forms its own batches."""
_PERCENTILES = ("p50_ms", "p95_ms", "p99_ms")
_PERCENTILE_HEADER = ("p50 ms", "p95 ms", "p99 ms")


def throughput_table(summaries: Sequence[PointSummary], model: str) -> Table:
    """Return a table of images a second by variant and batch size, at the best load of each."""
    best = best_by_batch(summaries, model)
    batches = sorted({batch for of_variant in best.values() for batch in of_variant})
    rows = [
        [
            f"`{variant}`",
            *(_with_band(of_variant[b].figures["images_per_s"]) if b in of_variant else "–" for b in batches),
        ]
        for variant, of_variant in best.items()
    ]
    title = "The detector without a server" if model == BARE else f"`{model}`, best load of each"
    return Table(["variant", *(f"batch {batch}" for batch in batches)], rows, f"Images a second: {title}")


def latency_table(summaries: Sequence[PointSummary]) -> Table:
    """Return a table of all loads with their latencies."""
    rows = []
    for summary in summaries:
        point = summary.point
        pace = str(point.concurrency) if summary.request_rate is None else f"{summary.request_rate:.2f} requests/s"
        way = point.protocol if point.shared_memory == "none" else f"{point.protocol}, {point.shared_memory} memory"
        rows.append(
            [
                f"`{point.variant}`" + ("" if point.setting == DEFAULT_SETTING else f" {point.setting}"),
                f"`{point.model}`",
                str(point.batch),
                "" if point.model == BARE else pace,
                "" if point.model == BARE else way,
                _with_band(summary.figures["images_per_s"]),
                *(f"{summary.figures[name].value:.1f}" for name in _PERCENTILES),
                "" if summary.cpu_ms is None else f"{summary.cpu_ms:.2f}",
            ]
        )
    header = ["variant", "model", "batch", "in flight", "over", "images/s", *_PERCENTILE_HEADER, "CPU ms an image"]
    return Table(header, rows, "Throughput and latency")


def overhead_table(summaries: Sequence[PointSummary], bare: Mapping[tuple[str, int], float]) -> Table:
    """Return a table of images a second of the served detector and the ensemble, as shares of those without a server.

    Args:
        summaries: Points of the sweep.
        bare: Images a second without a server, by variant and batch size.
    """
    rates = {BARE: dict(bare), **{model: rates_of(summaries, model) for model in (DETECTOR, ENSEMBLE)}}
    for of_model in rates.values():
        for variant in {name for name, _ in of_model}:
            of_model[variant, _ANY_BATCH] = max(rate for (name, _), rate in of_model.items() if name == variant)
    rows = []
    for variant, batch in sorted({*rates[DETECTOR], *rates[ENSEMBLE]}):
        alone, served, whole = (rates[model].get((variant, batch)) for model in (BARE, DETECTOR, ENSEMBLE))
        rows.append(
            [
                f"`{variant}`",
                "best" if batch == _ANY_BATCH else str(batch),
                *("–" if rate is None else f"{rate:.2f}" for rate in (alone, served, whole)),
                *(_share(one, other) for one, other in ((served, alone), (whole, alone), (whole, served))),
            ]
        )
    header = ["variant", "batch", "bare", f"`{DETECTOR}`", f"`{ENSEMBLE}`"]
    header += ["detector/bare", "ensemble/bare", "ensemble/detector"]
    return Table(header, rows, "Images a second over the bare detector")


def time_table(summaries: Sequence[PointSummary]) -> Table:
    """Return a table of the parts of a request's time in the ensemble, and of how busy each member is."""
    rows = []
    for summary in saturated(summaries):
        load = [f"`{summary.point.variant}`", str(summary.point.concurrency)]
        for member in members(summary):
            stage = member.stage
            times = [f"{stage.queue_ms:.1f}", f"{stage.compute_ms:.1f}", f"{stage.batch:.1f}"]
            rows.append([*load, f"`{stage.model}`", *times, member.instances])
        rows.append([*load, "client, network", "", f"{network_ms(summary):.1f}", "", ""])
    header = ["variant", "in flight", "model", "queue ms", "compute ms", "images together", "instances busy"]
    return Table(header, rows, "Where the time of a request to `ssd` goes, saturated")


def settings_table(summaries: Sequence[PointSummary]) -> Table:
    """Return a table of every setting relative to the first one, for each load."""
    first = next((one.point.setting for one in summaries if one.point.setting != DEFAULT_SETTING), DEFAULT_SETTING)
    base = {one.point: one for one in summaries if one.point.setting == first}
    rows = []
    for name, summary in zip(load_names(summaries), summaries, strict=True):
        reference = base.get(replace(summary.point, setting=first))
        if reference is not None:
            rows.append(
                [
                    summary.point.setting,
                    name,
                    _with_band(summary.figures["images_per_s"]),
                    f"{summary.images_per_s / reference.images_per_s:.2f}",
                    *(f"{summary.figures[name].value:.0f}" for name in _PERCENTILES),
                ]
            )
    header = ["setting", "load", "images/s", "to the first", *_PERCENTILE_HEADER]
    return Table(header, rows, "Settings")


def _share(one: float | None, other: float | None) -> str:
    return "–" if one is None or other is None else f"{one / other:.0%}"


def _with_band(figure: Median) -> str:
    digits = 0 if figure.value >= 100 else 2
    band = "" if figure.band is None else f" ± {figure.band:.0%}"
    return f"{figure.value:,.{digits}f}{band}"
