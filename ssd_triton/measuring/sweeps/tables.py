"""What a sweep tells: tables of throughput, latency, overhead, and of where the time of a request goes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape

from ssd_triton.detector.variants import BASELINE
from ssd_triton.measuring.sweeps.server_statistics import Stage
from ssd_triton.measuring.sweeps.summary import Figure, Summary
from ssd_triton.measuring.sweeps.sweep_file import BARE, DEFAULT_SETTING

DETECTOR, ENSEMBLE = "ssd_detector", "ssd"
_ENSEMBLES = ("ssd", "ssd_frames")
_ANY_BATCH = 65
"""Stands for the best of all batch sizes, and sorts behind them: dynamic batching makes its own."""


@dataclass(frozen=True)
class Table:
    """A table for people, in Markdown and HTML."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]

    def markdown(self) -> str:
        """With its title as a heading."""
        lines = [f"### {self.title}", "", f"| {' | '.join(self.header)} |", "|---" * len(self.header) + "|"]
        lines += [f"| {' | '.join(row)} |" for row in self.rows]
        return "\n".join(lines) + "\n"

    def html(self) -> str:
        """With its title as a heading; what is code in Markdown is code here."""
        head = "".join(f"<th>{escape(name)}</th>" for name in self.header)
        body = "".join(
            f"<tr>{''.join(f'<td>{escape(cell.strip(chr(96)))}</td>' for cell in row)}</tr>" for row in self.rows
        )
        return f"<h3>{escape(self.title)}</h3><table><tr>{head}</tr>{body}</table>"


def as_configured(summaries: Sequence[Summary]) -> list[Summary]:
    """Without the settings that are only compared."""
    return [summary for summary in summaries if summary.point.setting == DEFAULT_SETTING]


def best_by_batch(summaries: Sequence[Summary], model: str) -> dict[str, dict[int, Summary]]:
    """By variant and batch size: the load with the most images a second."""
    best: dict[str, dict[int, Summary]] = {}
    for summary in as_configured(summaries):
        point = summary.point
        if point.model == model and point.rate_share is None:
            of_variant = best.setdefault(point.variant, {})
            if point.batch not in of_variant or of_variant[point.batch].images_per_s < summary.images_per_s:
                of_variant[point.batch] = summary
    return best


def baseline_of(best: Mapping[str, Mapping[int, Summary]]) -> str | None:
    """Give the variant that acceleration is relative to: the first baseline that was measured."""
    return next((name for name in (BASELINE["gpu"], BASELINE["cpu"]) if name in best), None)


def throughput_table(summaries: Sequence[Summary], model: str) -> Table:
    """Images a second by variant and batch size, at the best load of each."""
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
    return Table(f"Images a second: {title}", ["variant", *(f"batch {batch}" for batch in batches)], rows)


def latency_table(summaries: Sequence[Summary]) -> Table:
    """Every load, with latencies."""
    rows = []
    for summary in summaries:
        point, figures = summary.point, summary.figures
        pace = str(point.concurrency) if summary.request_rate is None else f"{summary.request_rate:.2f} requests/s"
        way = point.protocol if point.shared_memory == "none" else f"{point.protocol}, {point.shared_memory} memory"
        rows.append(
            [
                f"`{point.variant}`" + ("" if point.setting == DEFAULT_SETTING else f" {point.setting}"),
                f"`{point.model}`",
                str(point.batch),
                "" if point.model == BARE else pace,
                "" if point.model == BARE else way,
                _with_band(figures["images_per_s"]),
                *(f"{figures[name].value:.1f}" for name in ("p50_ms", "p95_ms", "p99_ms")),
            ]
        )
    header = ["variant", "model", "batch", "under way", "over", "images/s", "p50 ms", "p95 ms", "p99 ms"]
    return Table("Throughput and latency", header, rows)


def overhead_table(summaries: Sequence[Summary], bare: Mapping[tuple[str, int], float]) -> Table:
    """What the server makes of the bare detector's images a second, and the ensemble of the served detector's.

    Args:
        summaries: Of the sweep.
        bare: Images a second without a server, by variant and batch size.
    """
    rates: dict[str, dict[tuple[str, int], float]] = {BARE: dict(bare)}
    for model in (DETECTOR, ENSEMBLE):
        best = best_by_batch(summaries, model)
        rates[model] = {(name, batch): one.images_per_s for name, of in best.items() for batch, one in of.items()}
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
    header = ["variant", "batch", "bare", f"`{DETECTOR}`", f"`{ENSEMBLE}`", "detector/bare", "ensemble/bare"]
    return Table("Images a second over the bare detector", [*header, "ensemble/detector"], rows)


def bare_rates(summaries: Sequence[Summary]) -> dict[tuple[str, int], float]:
    """Images a second without a server, from the sweep's own turns."""
    best = best_by_batch(summaries, BARE)
    return {(name, batch): one.images_per_s for name, of in best.items() for batch, one in of.items()}


@dataclass(frozen=True)
class Member:
    """A model on a request's way.

    Attributes:
        stage: Its times.
        busy: Instances of it that work, on average over time.
    """

    stage: Stage
    busy: float


def members(summary: Summary) -> list[Member]:
    """The models of an ensemble, or the model itself, in the order of their work."""
    found = [stage for stage in summary.stages if stage.model not in _ENSEMBLES]
    order = ["ssd_preprocess", DETECTOR, "ssd_postprocess"]
    found.sort(key=lambda stage: order.index(stage.model) if stage.model in order else len(order))
    requests_per_s = summary.images_per_s / summary.point.batch
    return [Member(stage, stage.work_ms * requests_per_s / 1e3) for stage in found]


def network_ms(summary: Summary) -> float:
    """Latency that the server does not account for: client, network, serialization."""
    served = [stage for stage in summary.stages if stage.model == summary.point.model]
    return max(0.0, summary.figures["mean_ms"].value - served[0].total_ms) if served else 0.0


def time_table(summaries: Sequence[Summary]) -> Table:
    """Where a request's time goes in the ensemble, and how busy each member is."""
    rows = []
    for summary in saturated(summaries):
        for member in members(summary):
            stage = member.stage
            rows.append(
                [
                    f"`{summary.point.variant}`",
                    str(summary.point.concurrency),
                    f"`{stage.model}`",
                    f"{stage.queue_ms:.1f}",
                    f"{stage.compute_ms:.1f}",
                    f"{stage.batch:.1f}",
                    f"{member.busy:.2f}",
                ]
            )
        rest = f"{network_ms(summary):.1f}"
        rows.append([f"`{summary.point.variant}`", str(summary.point.concurrency), "client, network", "", rest, "", ""])
    header = ["variant", "under way", "model", "queue ms", "compute ms", "images together", "instances busy"]
    return Table("Where the time of a request to `ssd` goes, saturated", header, rows)


def saturated(summaries: Sequence[Summary]) -> list[Summary]:
    """The ensemble at its best load, by variant, with one image a request."""
    return [of_variant[1] for of_variant in best_by_batch(summaries, ENSEMBLE).values() if 1 in of_variant]


def bottlenecks(summaries: Sequence[Summary]) -> list[str]:
    """A sentence for every variant: which member of the ensemble limits it."""
    sentences = []
    for summary in saturated(summaries):
        found = members(summary)
        if found:
            worst = max(found, key=lambda member: member.busy)
            share = worst.busy / sum(member.busy for member in found)
            sentences.append(
                f"`{summary.point.variant}`: the bottleneck of `ssd` is `{worst.stage.model}`, with {share:.0%} of the "
                f"models' working time ({worst.busy:.2f} instances of it at work on average)."
            )
    return sentences


def settings_table(summaries: Sequence[Summary]) -> Table:
    """Every setting relative to the first one, load by load."""
    first = next((one.point.setting for one in summaries if one.point.setting != DEFAULT_SETTING), DEFAULT_SETTING)
    base = {one.point: one for one in summaries if one.point.setting == first}
    rows = []
    for summary in summaries:
        reference = base.get(replace(summary.point, setting=first))
        if reference is None:
            continue
        figures = summary.figures
        rows.append(
            [
                summary.point.setting,
                f"`{summary.point.model}`",
                str(summary.point.concurrency),
                _with_band(figures["images_per_s"]),
                f"{summary.images_per_s / reference.images_per_s:.2f}",
                *(f"{figures[name].value:.0f}" for name in ("p50_ms", "p95_ms", "p99_ms")),
            ]
        )
    header = ["setting", "model", "under way", "images/s", "to the first", "p50 ms", "p95 ms", "p99 ms"]
    return Table("Settings", header, rows)


def _share(one: float | None, other: float | None) -> str:
    return "–" if one is None or other is None else f"{one / other:.0%}"


def _with_band(figure: Figure) -> str:
    digits = 0 if figure.value >= 100 else 2
    band = "" if figure.band is None else f" ± {figure.band:.0%}"
    return f"{figure.value:,.{digits}f}{band}"
