"""Pictures of a sweep. Each says by its return value whether there was anything to draw."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt

from ssd_triton.common.files import atomic_output
from ssd_triton.measuring.sweeps.comparison import Change
from ssd_triton.measuring.sweeps.summary import Summary
from ssd_triton.measuring.sweeps.sweep_file import BARE
from ssd_triton.measuring.sweeps.tables import (
    DETECTOR,
    ENSEMBLE,
    as_configured,
    bare_rates,
    baseline_of,
    best_by_batch,
    members,
    network_ms,
    saturated,
)

_TITLES = {DETECTOR: "detector through Triton", ENSEMBLE: "ensemble ssd, files in", BARE: "detector without a server"}
_PARTS = ("queue", "compute")


def plot_batches(path: Path, summaries: Sequence[Summary]) -> bool:
    """Images a second over batch size: the detector through the server, without it, and the ensemble."""
    models = [model for model in (BARE, DETECTOR, ENSEMBLE) if best_by_batch(summaries, model)]
    if not models:
        return False
    with _figure(path, len(models), sharey=True) as axes:
        for ax, model in zip(axes, models, strict=True):
            for variant, by_batch in best_by_batch(summaries, model).items():
                _line(ax, variant, dict(sorted(by_batch.items())))
            ax.set(title=_TITLES[model], xlabel="images in a request")
            _batch_axis(ax)
            ax.set_ylim(bottom=0)
        axes[0].set_ylabel("images/s (bars: noise)")
        axes[-1].legend(fontsize=8)
    return True


def plot_acceleration(path: Path, summaries: Sequence[Summary]) -> bool:
    """Images a second of every variant relative to the baseline, at equal batch size."""
    best = best_by_batch(summaries, DETECTOR) or best_by_batch(summaries, ENSEMBLE)
    baseline = baseline_of(best)
    if baseline is None or len(best) < 2:
        return False
    with _figure(path) as [ax]:
        for variant, by_batch in best.items():
            shared = sorted(set(by_batch) & set(best[baseline]))
            ratios = [by_batch[batch].images_per_s / best[baseline][batch].images_per_s for batch in shared]
            ax.plot(shared, ratios, marker="o", label=variant)
        ax.set(title=f"Acceleration relative to {baseline}, through Triton", xlabel="images in a request")
        ax.set_ylabel(f"times {baseline}")
        _batch_axis(ax)
        ax.set_ylim(bottom=0)
        ax.legend(fontsize=8)
    return True


def plot_latency(path: Path, summaries: Sequence[Summary]) -> bool:
    """Latency percentiles over throughput, one image a request; loads at even intervals are drawn hollow."""
    chosen = [one for one in as_configured(summaries) if one.point.model == ENSEMBLE and one.point.batch == 1]
    chosen = [one for one in chosen if one.point.shared_memory == "none"]
    variants = list(dict.fromkeys(one.point.variant for one in chosen))
    if not variants:
        return False
    with _figure(path, len(variants)) as axes:
        for ax, variant in zip(axes, variants, strict=True):
            mine = [one for one in chosen if one.point.variant == variant]
            for protocol in dict.fromkeys(one.point.protocol for one in mine):
                closed = [one for one in mine if one.point.protocol == protocol and one.point.rate_share is None]
                closed.sort(key=lambda one: one.point.concurrency)
                for name, style in (("p50_ms", "-"), ("p95_ms", "--"), ("p99_ms", ":")):
                    rates = [one.images_per_s for one in closed]
                    label = f"{name[:3]}, {protocol}"
                    ax.plot(rates, [one.figures[name].value for one in closed], style, marker="o", label=label)
                for one in closed:
                    ax.annotate(str(one.point.concurrency), (one.images_per_s, one.figures["p50_ms"].value), fontsize=8)
            paced = [one for one in mine if one.point.rate_share is not None]
            for name, marker in (("p50_ms", "s"), ("p99_ms", "^")):
                values = [one.figures[name].value for one in paced]
                if values:
                    rates = [one.images_per_s for one in paced]
                    ax.plot(rates, values, marker, mfc="none", color="0.3", label=f"{name[:3]}, even intervals")
            ax.set(title=f"ssd, {variant}", xlabel="images/s (numbers: requests under way)", ylabel="latency, ms")
            ax.set_ylim(bottom=0)
            ax.set_xlim(left=0)
            ax.legend(fontsize=8)
    return True


def plot_time(path: Path, summaries: Sequence[Summary]) -> bool:
    """Where the time of a request to the ensemble goes, over the load."""
    chosen = [one for one in as_configured(summaries) if one.point.model == ENSEMBLE and one.point.batch == 1]
    chosen = [one for one in chosen if one.point.rate_share is None and one.point.protocol == "grpc" and one.stages]
    variants = list(dict.fromkeys(one.point.variant for one in chosen))
    if not variants:
        return False
    with _figure(path, len(variants)) as axes:
        for ax, variant in zip(axes, variants, strict=True):
            mine = sorted(
                (one for one in chosen if one.point.variant == variant), key=lambda one: one.point.concurrency
            )
            positions = range(len(mine))
            bottoms = [0.0] * len(mine)
            for label, heights in _time_parts(mine).items():
                ax.bar(positions, heights, bottom=bottoms, label=label)
                bottoms = [bottom + height for bottom, height in zip(bottoms, heights, strict=True)]
            ax.set_xticks(positions, [str(one.point.concurrency) for one in mine])
            ax.set(title=f"ssd, {variant}", xlabel="requests under way", ylabel="mean latency, ms")
        axes[-1].legend(fontsize=8)
    return True


def _time_parts(summaries: Sequence[Summary]) -> dict[str, list[float]]:
    """Milliseconds by part, one value a summary."""
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


def plot_overhead(path: Path, summaries: Sequence[Summary], bare: Mapping[tuple[str, int], float]) -> bool:
    """The served detector and the ensemble as a share of the bare detector's images a second."""
    curves: dict[str, dict[int, float]] = {}
    for model in (DETECTOR, ENSEMBLE):
        for variant, by_batch in best_by_batch(summaries, model).items():
            shares = {b: by_batch[b].images_per_s / bare[variant, b] for b in sorted(by_batch) if (variant, b) in bare}
            if shares:
                curves[f"{model}, {variant}"] = shares
    if not curves:
        return False
    with _figure(path) as [ax]:
        for label, shares in curves.items():
            ax.plot(list(shares), list(shares.values()), marker="o", label=label)
        ax.axhline(1, color="0.4", linewidth=1)
        ax.axhline(0.85, color="0.4", linewidth=1, linestyle="--", label="85 %")
        ax.set(title="Images a second over the detector without a server", xlabel="images in a request", ylabel="share")
        _batch_axis(ax)
        ax.set_ylim(bottom=0)
        ax.legend(fontsize=8)
    return True


def plot_accuracy(path: Path, summaries: Sequence[Summary], accuracy: Mapping[str, float]) -> bool:
    """COCO AP over images a second of the ensemble."""
    best = {summary.point.variant: summary for summary in saturated(summaries)}
    shared = [variant for variant in best if variant in accuracy]
    if not shared:
        return False
    with _figure(path) as [ax]:
        for variant in shared:
            figure = best[variant].figures["images_per_s"]
            error = [[figure.value - figure.low], [figure.high - figure.value]]
            ax.errorbar([figure.value], [accuracy[variant]], xerr=error, marker="o", capsize=3, label=variant)
        ax.set(title="Accuracy and speed of the ensemble", xlabel="images/s (bars: noise)", ylabel="COCO AP")
        ax.set_xlim(left=0)
        ax.set_ylim(0, 1.15 * max(accuracy[variant] for variant in shared))
        ax.legend(fontsize=8)
    return True


def plot_settings(path: Path, summaries: Sequence[Summary]) -> bool:
    """Images a second and p95 of every setting, by load."""
    settings = list(dict.fromkeys(one.point.setting for one in summaries))
    if len(settings) < 2:
        return False
    loads = list(dict.fromkeys((one.point.model, one.point.concurrency) for one in summaries))
    with _figure(path, 2) as axes:
        for ax, metric in zip(axes, ("images_per_s", "p95_ms"), strict=True):
            for index, (model, concurrency) in enumerate(loads):
                mine = {
                    one.point.setting: one.figures[metric]
                    for one in summaries
                    if (one.point.model, one.point.concurrency) == (model, concurrency)
                }
                positions = [settings.index(name) + 0.8 * (index + 0.5) / len(loads) - 0.4 for name in mine]
                values = [figure.value for figure in mine.values()]
                errors = [
                    [figure.value - figure.low for figure in mine.values()],
                    [figure.high - figure.value for figure in mine.values()],
                ]
                label = f"{model}, {concurrency} under way"
                ax.barh(positions, values, 0.8 / len(loads), xerr=errors, capsize=2, label=label)
            ax.set_yticks(range(len(settings)), settings)
            ax.invert_yaxis()
            ax.set(xlabel=f"{'images/s' if metric == 'images_per_s' else 'p95 latency, ms'} (bars: noise)")
        axes[1].set_yticklabels([])
        axes[0].legend(fontsize=8)
    return True


def plot_changes(path: Path, changes: Sequence[Change]) -> bool:
    """Every figure of the second set relative to the first, with the noise of both."""
    colours = {"same": "0.5", "better": "tab:green", "worse": "tab:red"}
    with _figure(path, height_in=1.5 + 0.17 * len(changes)) as [ax]:
        for index, change in enumerate(changes):
            low = change.ratio * -math.expm1(-change.noise)
            high = change.ratio * math.expm1(change.noise)
            ax.errorbar([change.ratio], [index], xerr=[[low], [high]], marker="o", color=colours[change.verdict])
        ax.axvline(1, color="0.2", linewidth=1)
        ax.set_yticks(range(len(changes)), [f"{change.point}, {change.metric}" for change in changes], fontsize=7)
        ax.invert_yaxis()
        ax.set(title="After over before; what touches 1 is noise", xlabel="ratio")
    return True


def _line(ax: Any, label: str, by_batch: Mapping[int, Summary]) -> None:
    figures = [one.figures["images_per_s"] for one in by_batch.values()]
    errors = [[one.value - one.low for one in figures], [one.high - one.value for one in figures]]
    ax.errorbar(list(by_batch), [one.value for one in figures], yerr=errors, marker="o", capsize=3, label=label)


def _batch_axis(ax: Any) -> None:
    ax.set_xscale("log", base=2)
    ax.xaxis.set_major_formatter("{x:g}")


@contextmanager
def _figure(path: Path, columns: int = 1, *, sharey: bool = False, height_in: float = 4.2) -> Iterator[Any]:
    """A row of axes, written when the block is done."""
    size = (max(7.0, 4.6 * columns), height_in)
    figure, axes = plt.subplots(1, columns, figsize=size, layout="constrained", sharey=sharey, squeeze=False)
    try:
        yield list(axes[0])
        for ax in axes[0]:
            ax.grid(visible=True, alpha=0.25)
        with atomic_output(path) as temporary:
            figure.savefig(temporary, dpi=100)
    finally:
        plt.close(figure)


Plot = Callable[[Path], bool]


def all_plots(
    summaries: Sequence[Summary], bare: Mapping[tuple[str, int], float], accuracy: Mapping[str, float]
) -> dict[str, Plot]:
    """What draws each picture, by file name."""
    alone = {**bare, **bare_rates(summaries)}
    return {
        "images_per_s.png": lambda path: plot_batches(path, summaries),
        "acceleration.png": lambda path: plot_acceleration(path, summaries),
        "latency.png": lambda path: plot_latency(path, summaries),
        "time.png": lambda path: plot_time(path, summaries),
        "overhead.png": lambda path: plot_overhead(path, summaries, alone),
        "accuracy.png": lambda path: plot_accuracy(path, summaries, accuracy),
        "settings.png": lambda path: plot_settings(path, summaries),
    }
