"""Writes the report of a fuzzing run: a table, a record and a plot."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ssd_triton.common.report import ReportFolder, Table, markdown
from ssd_triton.measuring.fuzz.run import FuzzResult

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def fuzz_markdown(result: FuzzResult) -> str:
    """Return the report as Markdown: inputs by format and outcome, then times and memory."""
    outcomes = list(dict.fromkeys(outcome for _, outcome in sorted(result.outcomes)))
    formats = sorted({name for name, _ in result.outcomes})
    rows = [[name, *(f"{result.outcomes[name, outcome]:,}" for outcome in outcomes)] for name in formats]
    totals = (sum(result.outcomes[name, outcome] for name in formats) for outcome in outcomes)
    rows.append([f"{result.inputs:,} inputs", *(f"{total:,}" for total in totals)])
    resources = ""
    if result.resident_bytes:
        p50, p99, slowest = np.percentile(result.times_s, (50, 99, 100)) * 1000
        resources = (
            f"An input takes {p50:.2f} ms (median), {p99:.1f} ms (p99), {slowest:.0f} ms at most. Resident memory "
            f"grows by {result.growth_bytes() / 2**20:.1f} MiB from the second tenth of the run to the last, and is "
            f"{result.resident_bytes[-1] / 2**20:.0f} MiB at its end; its peak is {result.peak_bytes / 2**20:.0f} MiB."
        )
    return markdown(Table(["format", *outcomes], rows), resources)


def write_report(result: FuzzResult, folder: Path, *, seed: int) -> list[Path]:
    """Write ``report.md``, ``report.json`` and, if time and memory were measured, ``fuzz.png``."""
    record = {
        "seed": seed,
        "inputs": result.inputs,
        "outcomes": {f"{name} {outcome}": count for (name, outcome), count in sorted(result.outcomes.items())},
        "reasons": dict(result.reasons.most_common(40)),
        "findings": result.findings,
        "peak_bytes": result.peak_bytes,
        "growth_bytes": result.growth_bytes(),
    }
    report = ReportFolder(folder)
    report.text("report.md", fuzz_markdown(result))
    report.json("report.json", record)
    report.picture("fuzz.png", lambda figure: _draw(figure, result), columns=2)
    return report.written


def _draw(figure: Figure, result: FuzzResult) -> None:
    if not result.resident_bytes:
        return
    memory, times = figure.subplots(1, 2)
    at = np.linspace(0, result.inputs, len(result.resident_bytes))
    memory.plot(at, np.array(result.resident_bytes) / 2**20, linewidth=1)
    memory.set(xlabel="inputs", ylabel="MiB", title="Resident memory of the decoder", ylim=(0, None))
    memory.locator_params(axis="x", nbins=5)
    times.hist(np.array(result.times_s) * 1000, bins=np.geomspace(1e-2, 1e4, 60).tolist())
    times.set(xscale="log", yscale="log", xlabel="ms", ylabel="inputs", title="Time of an input")
