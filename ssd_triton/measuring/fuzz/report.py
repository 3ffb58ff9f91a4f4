"""What a run of the fuzzer has shown: a table, a record and a picture."""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.ticker import MaxNLocator

mpl.use("Agg")
import matplotlib.pyplot as plt

from ssd_triton.common.files import atomic_output
from ssd_triton.measuring.fuzz.run import FuzzResult


def table(result: FuzzResult) -> str:
    """Markdown: inputs by format and outcome, then times and memory."""
    outcomes = list(dict.fromkeys(outcome for _, outcome in sorted(result.outcomes)))
    formats = sorted({name for name, _ in result.outcomes})
    lines = [f"| format | {' | '.join(outcomes)} |", "|---" * (len(outcomes) + 1) + "|"]
    for name in formats:
        lines.append(f"| {name} | {' | '.join(f'{result.outcomes[name, outcome]:,}' for outcome in outcomes)} |")
    totals = [sum(result.outcomes[name, outcome] for name in formats) for outcome in outcomes]
    lines.append(f"| {result.inputs:,} inputs | {' | '.join(f'{total:,}' for total in totals)} |")
    if result.resident_bytes:
        p50, p99, slowest = np.percentile(result.times_s, (50, 99, 100)) * 1000
        lines += [
            "",
            f"An input takes {p50:.2f} ms (median), {p99:.1f} ms (p99), {slowest:.0f} ms at most. Resident memory "
            f"grows by {result.growth_bytes() / 2**20:.1f} MiB from the second tenth of the run to the last, and is "
            f"{result.resident_bytes[-1] / 2**20:.0f} MiB at its end; its peak is {result.peak_bytes / 2**20:.0f} MiB.",
        ]
    return "\n".join(lines)


def write_report(result: FuzzResult, folder: Path, *, seed: int) -> list[Path]:
    """Write ``report.md``, ``report.json`` and, where time and memory were measured, ``fuzz.png``."""
    written = [folder / "report.md", folder / "report.json"]
    with atomic_output(written[0]) as path:
        path.write_text(table(result) + "\n", encoding="utf-8")
    record = {
        "seed": seed,
        "inputs": result.inputs,
        "outcomes": {f"{name} {outcome}": count for (name, outcome), count in sorted(result.outcomes.items())},
        "reasons": dict(result.reasons.most_common(40)),
        "findings": result.findings,
        "peak_bytes": result.peak_bytes,
        "growth_bytes": result.growth_bytes(),
    }
    with atomic_output(written[1]) as path:
        path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    if result.resident_bytes:
        written.append(_plot(result, folder / "fuzz.png"))
    return written


def _plot(result: FuzzResult, target: Path) -> Path:
    figure, (memory, times) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    at = np.linspace(0, result.inputs, len(result.resident_bytes))
    memory.plot(at, np.array(result.resident_bytes) / 2**20, linewidth=1)
    memory.set(xlabel="inputs", ylabel="MiB", title="Resident memory of the decoder", ylim=(0, None))
    memory.xaxis.set_major_locator(MaxNLocator(5))
    times.hist(np.array(result.times_s) * 1000, bins=np.geomspace(1e-2, 1e4, 60).tolist())
    times.set(xscale="log", yscale="log", xlabel="ms", ylabel="inputs", title="Time of an input")
    with atomic_output(target) as path:
        figure.savefig(path, dpi=120)
    plt.close(figure)
    return target
