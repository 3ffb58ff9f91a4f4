"""Writes the report of a soak test: its verdict, the samples as a table, and their curves."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from ssd_triton.common.machine import environment
from ssd_triton.common.report import Bullets, Heading, ReportFolder, Table, markdown
from ssd_triton.measuring.process_monitor import ProcessSample, percentile
from ssd_triton.measuring.soak.run import SoakResult

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_ROWS = 400
"""Most samples in the table; of longer runs it has every second, third, ... sample."""


def write_report(folder: Path, result: SoakResult) -> list[Path]:
    """Write ``soak.md``, ``soak.csv`` and ``soak.png``, and return their paths."""
    report = ReportFolder(folder)
    report.text("soak.md", soak_markdown(result))
    report.csv("soak.csv", [_csv_row(sample, result.samples[-1]) for sample in _thinned(result.samples)])
    report.picture("soak.png", lambda figure: _draw(figure, result), rows=2, columns=2)
    return report.written


def soak_markdown(result: SoakResult) -> str:
    """Return the report as Markdown: the verdict, requests by kind, and the resources of the processes."""
    failures, samples = result.failures(), result.samples
    end = ", ended early by Ctrl-C" if result.interrupted else ""
    first, last = _after_warm_up(result), samples[-1]
    facts = environment()
    machine = ", ".join(f"{name} {facts[name]}" for name in ("processor", "cores", "system", "python", "date"))
    return markdown(
        Heading(f"Soak: {'failed' if failures else 'passed'}", 1),
        f"{result.requests:,} requests in {last.time_s / 60:.1f} minutes{end}; `{result.variant}`; every answer "
        "checked.",
        Bullets([f"**{failure}**" for failure in failures]),
        _requests_table(result),
        _processes_table(result, first),
        f"Shared memory: {first.shared_memory_files} regions, {first.shared_memory_mib:.1f} MiB after warm-up; at the "
        f"end, with the clients gone, {last.shared_memory_files} and {last.shared_memory_mib:.1f} MiB. Requests that a "
        f"client sent again: {result.retries}.",
        f"Memory is resident memory, medians of a tenth of the samples; warm-up is the first "
        f"{result.settings.warm_up_fraction:.0%} of the time. {machine}.",
    )


def _requests_table(result: SoakResult) -> Table:
    rows = []
    for kind, tally in result.tallies.items():
        counts = (tally.requests, tally.answered, tally.refused, tally.wrong, tally.lost)
        latencies = (f"{percentile(tally.latencies_ms, percent):.0f}" for percent in (50, 95, 99))
        rows.append([kind, *(f"{count:,}" for count in counts), *latencies])
    header = ["kind", "requests", "answered right", "refused for the right reason", "wrong", "lost"]
    return Table([*header, "p50 ms", "p95 ms", "p99 ms"], rows)


def _processes_table(result: SoakResult, first: ProcessSample) -> Table:
    rows = []
    for name, one in result.growth.items():
        known = name in first.descriptors
        descriptors = f"{first.descriptors[name]}, {result.samples[-1].descriptors[name]}" if known else ""
        rows.append([name, f"{one.before_mib:.1f}", f"{one.after_mib:.1f}", f"{one.share:+.1%}", descriptors])
    header = ["process", "MiB after warm-up", "MiB at the end", "growth", "descriptors after warm-up, at the end"]
    return Table(header, rows)


def _after_warm_up(result: SoakResult) -> ProcessSample:
    begin_s = result.samples[-1].time_s * result.settings.warm_up_fraction
    return next(sample for sample in result.samples if sample.time_s >= begin_s)


def _csv_row(sample: ProcessSample, last: ProcessSample) -> dict[str, object]:
    nan = float("nan")
    row: dict[str, object] = {
        "time_s": sample.time_s,
        "requests": sample.requests,
        "shared_memory_files": sample.shared_memory_files,
        "shared_memory_mib": sample.shared_memory_mib,
    }
    row.update({f"{name} rss_mib": mib for name, mib in sample.rss_mib.items()})
    row.update({f"{name} descriptors": count for name, count in sample.descriptors.items()})
    for kind in last.p50_ms:
        row[f"{kind} p50_ms"], row[f"{kind} p95_ms"] = sample.p50_ms.get(kind, nan), sample.p95_ms.get(kind, nan)
    return row


def _thinned(samples: Sequence[ProcessSample]) -> Sequence[ProcessSample]:
    return samples[:: -(-len(samples) // _MOST_ROWS)]


def _draw(figure: Figure, result: SoakResult) -> None:
    (memory, latency), (descriptors, rate) = figure.subplots(2, 2)
    samples, nan = result.samples, float("nan")
    minutes = [sample.time_s / 60 for sample in samples]
    for name in samples[0].rss_mib:
        memory.plot(minutes, [sample.rss_mib[name] for sample in samples], label=name)
        descriptors.plot(minutes, [sample.descriptors[name] for sample in samples], label=f"{name}: descriptors")
    regions = [sample.shared_memory_files for sample in samples]
    memory.plot(minutes, [sample.shared_memory_mib for sample in samples], "k:", label="shared memory")
    descriptors.plot(minutes, regions, "k:", label="regions of shared memory")
    for kind in samples[-1].p50_ms:
        values = [sample.p95_ms.get(kind, nan) for sample in samples]
        latency.plot(minutes, values, label=kind, linewidth=0.8, marker=".", markersize=3)
    rates = [
        (after.requests - before.requests) / max(after.time_s - before.time_s, 1e-9)
        for before, after in pairwise(samples)
    ]
    rate.plot(minutes[1:], rates, linewidth=0.8)
    memory.set(title="Resident memory", ylabel="MiB", ylim=(0, None))
    latency.set(title="95th percentile of the latency", ylabel="ms", yscale="log")
    descriptors.set(title="Open files and shared memory", ylim=(0, None))
    rate.set(title="Requests answered or refused", ylabel="requests/s", ylim=(0, None))
    for axes in (memory, latency, descriptors, rate):
        axes.set_xlabel("minutes")
        axes.axvspan(0, samples[-1].time_s * result.settings.warm_up_fraction / 60, color="0.9", zorder=0)
    for axes in (memory, latency, descriptors):
        axes.legend()
