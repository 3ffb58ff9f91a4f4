"""What a soak leaves: a report with its verdict, the samples as a table, and their curves."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt

from ssd_triton.common.files import atomic_output
from ssd_triton.evaluation.environment import environment
from ssd_triton.measuring.soak.run import SoakResult
from ssd_triton.measuring.soak.watch import Sample, percentile

_MOST_ROWS = 400
"""Samples in the table; of longer runs it has every second, third, ... one."""


def write_report(folder: Path, result: SoakResult) -> list[Path]:
    """Write ``soak.md``, ``soak.csv`` and ``soak.png``, and return their paths."""
    markdown, table, plot = (folder / f"soak.{suffix}" for suffix in ("md", "csv", "png"))
    with atomic_output(markdown) as temporary:
        temporary.write_text(report(result) + "\n", encoding="utf-8")
    _write_samples(table, result.samples)
    _plot(plot, result)
    return [markdown, table, plot]


def report(result: SoakResult) -> str:
    """Markdown: the verdict, requests by kind, and what the processes held."""
    failures = result.failures()
    seconds = result.samples[-1].time_s
    end = ", ended early by Ctrl-C" if result.interrupted else ""
    lines = [
        f"# Soak: {'failed' if failures else 'passed'}",
        "",
        f"{result.requests:,} requests in {seconds / 60:.1f} minutes{end}; `{result.variant}`; every answer checked.",
        "",
        *(f"- **{failure}**" for failure in failures),
        *([""] if failures else []),
        "| kind | requests | answered right | refused for the right reason | wrong | p50 ms | p95 ms | p99 ms |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for kind, tally in result.tallies.items():
        latencies = " | ".join(f"{percentile(tally.latencies_ms, percent):.0f}" for percent in (50, 95, 99))
        counts = f"{tally.requests:,} | {tally.answered:,} | {tally.refused:,} | {tally.wrong:,}"
        lines.append(f"| {kind} | {counts} | {latencies} |")
    lines += ["", "| process | MiB after warm-up | MiB at the end | growth | descriptors after warm-up, at the end |"]
    lines.append("|---|---|---|---|---|")
    first, last = _after_warm_up(result), result.samples[-1]
    for name, one in result.growth.items():
        descriptors = f"{first.descriptors[name]}, {last.descriptors[name]}" if name in first.descriptors else ""
        lines.append(f"| {name} | {one.before_mib:.1f} | {one.after_mib:.1f} | {one.share:+.1%} | {descriptors} |")
    lines += [
        "",
        f"Shared memory: {first.shared_memory_files} regions, {first.shared_memory_mib:.1f} MiB after warm-up; at the "
        f"end, with the clients gone, {last.shared_memory_files} and {last.shared_memory_mib:.1f} MiB. Requests that a "
        f"client sent again: {result.retries}.",
        "",
        f"Memory is resident memory, medians of a tenth of the samples; warm-up is the first "
        f"{result.settings.warm_up_fraction:.0%} of the time. {_machine()}",
    ]
    return "\n".join(lines)


def _machine() -> str:
    facts = environment()
    names = ("processor", "cores", "system", "python", "date")
    return ", ".join(f"{name} {facts[name]}" for name in names) + "."


def _after_warm_up(result: SoakResult) -> Sample:
    begin_s = result.samples[-1].time_s * result.settings.warm_up_fraction
    return next(sample for sample in result.samples if sample.time_s >= begin_s)


def _write_samples(path: Path, samples: Sequence[Sample]) -> None:
    processes = list(samples[0].rss_mib)
    kinds = list(samples[-1].p50_ms)
    header = ["time_s", "requests", "shared_memory_files", "shared_memory_mib"]
    header += [f"{name} rss_mib" for name in processes] + [f"{name} descriptors" for name in processes]
    header += [f"{kind} {name}" for kind in kinds for name in ("p50_ms", "p95_ms")]
    nan = float("nan")
    with atomic_output(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        for sample in _thinned(samples):
            row = [sample.time_s, sample.requests, sample.shared_memory_files, sample.shared_memory_mib]
            row += [sample.rss_mib[name] for name in processes] + [sample.descriptors[name] for name in processes]
            row += [values.get(kind, nan) for kind in kinds for values in (sample.p50_ms, sample.p95_ms)]
            writer.writerow([f"{value:.6g}" for value in row])


def _thinned(samples: Sequence[Sample]) -> Sequence[Sample]:
    step = -(-len(samples) // _MOST_ROWS)
    return samples[::step]


def _plot(path: Path, result: SoakResult) -> None:
    figure, ((memory, latency), (descriptors, rate)) = plt.subplots(2, 2, figsize=(13, 8), layout="constrained")
    samples = result.samples
    minutes = [sample.time_s / 60 for sample in samples]
    for name in samples[0].rss_mib:
        memory.plot(minutes, [sample.rss_mib[name] for sample in samples], label=name)
        descriptors.plot(minutes, [sample.descriptors[name] for sample in samples], label=f"{name}: descriptors")
    memory.plot(minutes, [sample.shared_memory_mib for sample in samples], "k:", label="shared memory")
    descriptors.plot(
        minutes, [sample.shared_memory_files for sample in samples], "k:", label="regions of shared memory"
    )
    for kind in samples[-1].p50_ms:
        values = [sample.p95_ms.get(kind, float("nan")) for sample in samples]
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
        axes.grid(visible=True, alpha=0.25)
        axes.axvspan(0, samples[-1].time_s * result.settings.warm_up_fraction / 60, color="0.9", zorder=0)
    for axes in (memory, latency, descriptors):
        axes.legend(fontsize=8)
    with atomic_output(path) as temporary:
        figure.savefig(temporary, dpi=90)
    plt.close(figure)
