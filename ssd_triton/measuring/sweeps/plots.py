"""Plots of a sweep; a function without anything to show adds no axes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from ssd_triton.common.model_names import DETECTOR
from ssd_triton.common.report import GREEN, RED, log2_axis
from ssd_triton.measuring.sweeps.analysis import (
    ENSEMBLE,
    as_configured,
    baseline_of,
    best_by_batch,
    load_names,
    members,
    network_ms,
    saturated,
)
from ssd_triton.measuring.sweeps.comparison import Change
from ssd_triton.measuring.sweeps.point_summary import Median, PointSummary
from ssd_triton.measuring.sweeps.sweep_file import BARE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_TITLES = {DETECTOR: "detector through Triton", ENSEMBLE: "ensemble ssd, files in", BARE: "detector without a server"}
_PARTS = ("queue", "compute")
_SERVER_COST_TARGET = 0.85
"""Share of the bare detector's images a second that the server should reach."""
Drawing = tuple[Callable[["Figure"], None], int]
"""A function that draws a picture, and the number of its columns of axes."""


def all_pictures(
    summaries: Sequence[PointSummary], bare: Mapping[tuple[str, int], float], accuracy: Mapping[str, float]
) -> dict[str, Drawing]:
    """Return the drawings by file name.

    Args:
        summaries: Points of the sweep that have figures.
        bare: Images a second without a server, by variant and batch size.
        accuracy: COCO AP by variant.
    """
    models = [model for model in (BARE, DETECTOR, ENSEMBLE) if best_by_batch(summaries, model)]
    single = [one for one in as_configured(summaries) if one.point.model == ENSEMBLE and one.point.batch == 1]
    sent = _by_variant(one for one in single if one.point.shared_memory == "none")
    timed = _by_variant(
        one for one in single if one.point.rate_share is None and one.point.protocol == "grpc" and one.stages
    )
    return {
        "images_per_s.png": (partial(_draw_batches, summaries, models), len(models)),
        "acceleration.png": (partial(_draw_acceleration, summaries), 1),
        "latency.png": (partial(_draw_latencies, sent), len(sent)),
        "time.png": (partial(_draw_times, timed), len(timed)),
        "overhead.png": (partial(_draw_overhead, summaries, bare), 1),
        "accuracy.png": (partial(_draw_accuracy, summaries, accuracy), 1),
        "settings.png": (partial(_draw_settings, summaries), 2),
    }


def draw_changes(figure: Figure, changes: Sequence[Change]) -> None:
    """Draw every figure of the second set relative to the first, with the noise of both."""
    colours = {"same": "0.5", "better": GREEN, "worse": RED}
    axes = figure.subplots()
    for index, change in enumerate(changes):
        low = change.ratio * -math.expm1(-change.noise)
        high = change.ratio * math.expm1(change.noise)
        axes.errorbar([change.ratio], [index], xerr=[[low], [high]], marker="o", color=colours[change.verdict])
    axes.axvline(1, color="0.2", linewidth=1)
    axes.set_yticks(range(len(changes)), [f"{change.point}, {change.metric}" for change in changes], fontsize=7)
    axes.invert_yaxis()
    axes.set(title="After over before; what touches 1 is noise", xlabel="ratio")


def _draw_batches(summaries: Sequence[PointSummary], models: Sequence[str], figure: Figure) -> None:
    """Draw images a second over batch size: the detector without and with a server, and the ensemble."""
    if not models:
        return
    panels = figure.subplots(1, len(models), sharey=True, squeeze=False)[0]
    for axes, model in zip(panels, models, strict=True):
        best = best_by_batch(summaries, model)
        for variant, by_batch in best.items():
            batches = sorted(by_batch)
            figures = [by_batch[batch].figures["images_per_s"] for batch in batches]
            values = [one.value for one in figures]
            axes.errorbar(batches, values, yerr=_errors(figures), marker="o", capsize=3, label=variant)
        axes.set(title=_TITLES[model], xlabel="images in a request")
        log2_axis(axes, sorted({batch for by_batch in best.values() for batch in by_batch}))
        axes.set_ylim(bottom=0)
    panels[0].set_ylabel("images/s (bars: noise)")
    panels[-1].legend()


def _draw_acceleration(summaries: Sequence[PointSummary], figure: Figure) -> None:
    """Draw images a second of every variant relative to the baseline, at equal batch size."""
    best = best_by_batch(summaries, DETECTOR) or best_by_batch(summaries, ENSEMBLE)
    baseline = baseline_of(best)
    if baseline is None or len(best) < 2:
        return
    axes = figure.subplots()
    for variant, by_batch in best.items():
        shared = sorted(set(by_batch) & set(best[baseline]))
        ratios = [by_batch[batch].images_per_s / best[baseline][batch].images_per_s for batch in shared]
        axes.plot(shared, ratios, marker="o", label=variant)
    axes.set(title=f"Acceleration relative to {baseline}, through Triton", xlabel="images in a request")
    axes.set_ylabel(f"times {baseline}")
    log2_axis(axes, sorted(best[baseline]))
    axes.set_ylim(bottom=0)
    axes.legend()


def _draw_latencies(summaries: Mapping[str, Sequence[PointSummary]], figure: Figure) -> None:
    """Draw latency percentiles over throughput for one image a request; loads at even intervals have hollow markers."""
    for axes, (variant, mine) in _panels(figure, summaries):
        for protocol in dict.fromkeys(one.point.protocol for one in mine):
            closed = [one for one in mine if one.point.protocol == protocol and one.point.rate_share is None]
            _draw_closed_loop(axes, protocol, sorted(closed, key=lambda one: one.point.concurrency))
        paced = [one for one in mine if one.point.rate_share is not None]
        for name, marker in (("p50_ms", "s"), ("p99_ms", "^")) if paced else ():
            rates, values = [one.images_per_s for one in paced], [one.figures[name].value for one in paced]
            axes.plot(rates, values, marker, mfc="none", color="0.3", label=f"{name[:3]}, even intervals")
        axes.set(title=f"ssd, {variant}", xlabel="images/s (numbers: requests in flight)", ylabel="latency, ms")
        axes.set_ylim(bottom=0)
        axes.set_xlim(left=0)
        axes.legend()


def _draw_closed_loop(axes: Axes, protocol: str, summaries: Sequence[PointSummary]) -> None:
    rates = [one.images_per_s for one in summaries]
    for name, style in (("p50_ms", "-"), ("p95_ms", "--"), ("p99_ms", ":")):
        values = [one.figures[name].value for one in summaries]
        axes.plot(rates, values, style, marker="o", label=f"{name[:3]}, {protocol}")
    for one in summaries:
        axes.annotate(str(one.point.concurrency), (one.images_per_s, one.figures["p50_ms"].value), fontsize=8)


def _draw_times(summaries: Mapping[str, Sequence[PointSummary]], figure: Figure) -> None:
    """Draw how the time of a request to the ensemble is spent, over the load."""
    for axes, (variant, unordered) in _panels(figure, summaries):
        mine = sorted(unordered, key=lambda one: one.point.concurrency)
        positions, bottoms = range(len(mine)), [0.0] * len(mine)
        for label, heights in _time_parts(mine).items():
            axes.bar(positions, heights, bottom=bottoms, label=label)
            bottoms = [bottom + height for bottom, height in zip(bottoms, heights, strict=True)]
        axes.set_xticks(positions, [str(one.point.concurrency) for one in mine])
        axes.set(title=f"ssd, {variant}", xlabel="requests in flight", ylabel="mean latency, ms")
        axes.legend()


def _time_parts(summaries: Sequence[PointSummary]) -> dict[str, list[float]]:
    """Return the milliseconds of each part, with one value for each point."""
    parts: dict[str, list[float]] = {}
    for index, summary in enumerate(summaries):
        named = {
            f"{member.stage.model.removeprefix('ssd_')} {part}": getattr(member.stage, f"{part}_ms")
            for member in members(summary)
            for part in _PARTS
        }
        for label, value in {**named, "client, network": network_ms(summary)}.items():
            parts.setdefault(label, [0.0] * len(summaries))[index] = value
    return parts


def _draw_overhead(summaries: Sequence[PointSummary], bare: Mapping[tuple[str, int], float], figure: Figure) -> None:
    """Draw images a second of the served detector and the ensemble, as shares of the bare detector's."""
    curves: dict[str, dict[int, float]] = {}
    for model in (DETECTOR, ENSEMBLE):
        for variant, by_batch in best_by_batch(summaries, model).items():
            shares = {b: by_batch[b].images_per_s / bare[variant, b] for b in sorted(by_batch) if (variant, b) in bare}
            if shares:
                curves[f"{model}, {variant}"] = shares
    if not curves:
        return
    axes = figure.subplots()
    for label, shares in curves.items():
        axes.plot(list(shares), list(shares.values()), marker="o", label=label)
    axes.axhline(1, color="0.4", linewidth=1)
    label = f"{_SERVER_COST_TARGET:.0%}"
    axes.axhline(_SERVER_COST_TARGET, color="0.4", linewidth=1, linestyle="--", label=label)
    axes.set(title="Images a second over the detector without a server", xlabel="images in a request", ylabel="share")
    log2_axis(axes, sorted({batch for shares in curves.values() for batch in shares}))
    axes.set_ylim(bottom=0)
    axes.legend()


def _draw_accuracy(summaries: Sequence[PointSummary], accuracy: Mapping[str, float], figure: Figure) -> None:
    """Draw COCO AP over images a second of the ensemble."""
    best = {summary.point.variant: summary for summary in saturated(summaries)}
    shared = [variant for variant in best if variant in accuracy]
    if not shared:
        return
    axes = figure.subplots()
    for variant in shared:
        median = best[variant].figures["images_per_s"]
        axes.errorbar([median.value], [accuracy[variant]], xerr=_errors([median]), marker="o", capsize=3, label=variant)
    axes.set(title="Accuracy and speed of the ensemble", xlabel="images/s (bars: noise)", ylabel="COCO AP")
    axes.set_xlim(left=0)
    axes.set_ylim(0, 1.15 * max(accuracy[variant] for variant in shared))
    axes.legend()


def _draw_settings(summaries: Sequence[PointSummary], figure: Figure) -> None:
    """Draw images a second and p95 of every load, by setting."""
    settings = list(dict.fromkeys(one.point.setting for one in summaries))
    if len(settings) < 2:
        return
    names = load_names(summaries)
    loads = list(dict.fromkeys(names))
    panels = figure.subplots(1, 2)
    height = 0.8 / len(settings)
    for axes, metric, label in zip(panels, ("images_per_s", "p95_ms"), ("images/s", "p95 latency, ms"), strict=True):
        for index, setting in enumerate(settings):
            mine = {
                name: one.figures[metric]
                for name, one in zip(names, summaries, strict=True)
                if one.point.setting == setting
            }
            positions = [loads.index(load) + (index + 0.5) * height - 0.4 for load in mine]
            medians = list(mine.values())
            values = [median.value for median in medians]
            axes.barh(positions, values, height, xerr=_errors(medians), capsize=2, label=setting)
        axes.set_yticks(range(len(loads)), loads)
        axes.invert_yaxis()
        axes.set(xlabel=f"{label} (bars: noise)")
    panels[1].set_yticklabels([])
    panels[1].legend()


def _by_variant(summaries: Any) -> dict[str, list[PointSummary]]:
    found: dict[str, list[PointSummary]] = {}
    for summary in summaries:
        found.setdefault(summary.point.variant, []).append(summary)
    return found


def _panels(figure: Figure, by_variant: Mapping[str, Sequence[PointSummary]]) -> Any:
    """Return axes beside one another, one for each variant."""
    if not by_variant:
        return ()
    return zip(figure.subplots(1, len(by_variant), squeeze=False)[0], by_variant.items(), strict=True)


def _errors(medians: Sequence[Median]) -> list[list[float]]:
    """Return the distances of the medians to the lower and upper ends of their bands."""
    return [[one.value - one.low for one in medians], [one.high - one.value for one in medians]]
