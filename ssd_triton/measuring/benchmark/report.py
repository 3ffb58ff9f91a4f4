"""Tables and plots of a benchmark."""

from __future__ import annotations

import csv
import json
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt

from ssd_triton.common.files import atomic_output
from ssd_triton.measuring.benchmark.measure import Limit
from ssd_triton.measuring.benchmark.timing import Row


def write_report(folder: Path, rows: list[Row], limit: Limit, machine: dict[str, str], baseline: str) -> list[Path]:
    """Write ``benchmark.csv``, ``benchmark.json`` and two plots, and return their paths.

    Args:
        folder: Where they go.
        rows: What was measured.
        limit: What the machine could do at best.
        machine: Names and versions.
        baseline: The variant that acceleration is relative to.
    """
    written = []
    with atomic_output(folder / "benchmark.csv") as path, path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0].to_dict()))
        writer.writeheader()
        writer.writerows(row.to_dict() for row in rows)
    written.append(folder / "benchmark.csv")
    record = {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": machine,
        "limit": asdict(limit),
        "rows": [row.to_dict() for row in rows],
    }
    with atomic_output(folder / "benchmark.json") as path:
        path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    written.append(folder / "benchmark.json")
    device = machine.get("gpu", machine["processor"])
    limits = {batch: limit.images_per_s(batch) for batch in sorted({row.batch for row in rows})}
    by_batch = {(row.variant, row.batch): row.images_per_s for row in rows}
    written.append(_plot(folder / "images_per_s.png", by_batch, f"Images a second, {device}", "images/s", limits))
    relative = {key: value / by_batch[baseline, key[1]] for key, value in by_batch.items()}
    title = f"Acceleration relative to {baseline}, {device}"
    written.append(_plot(folder / "acceleration.png", relative, title, f"times {baseline}", None))
    return written


def table(rows: list[Row]) -> str:
    """Markdown: images a second of every variant over batch size."""
    batches = sorted({row.batch for row in rows})
    values = {(row.variant, row.batch): row.images_per_s for row in rows}
    lines = [f"| images/s at batch | {' | '.join(map(str, batches))} |", "|---" * (len(batches) + 1) + "|"]
    for variant in dict.fromkeys(row.variant for row in rows):
        figures = " | ".join(
            f"{values[variant, batch]:,.{0 if values[variant, batch] > 100 else 2}f}" for batch in batches
        )
        lines.append(f"| {variant} | {figures} |")
    return "\n".join(lines)


def _plot(
    path: Path, values: dict[tuple[str, int], float], title: str, unit: str, limits: dict[int, float] | None
) -> Path:
    """Lines over batch size, one a variant, and the physical limit where there is one."""
    figure, axes = plt.subplots(figsize=(8, 4.8), layout="constrained")
    for variant in dict.fromkeys(name for name, _ in values):
        batches = sorted(batch for name, batch in values if name == variant)
        axes.plot(batches, [values[variant, batch] for batch in batches], marker="o", label=variant)
    if limits is not None:
        axes.plot(
            list(limits), list(limits.values()), "k--", linewidth=1, label="limit: measured matrix rate, bandwidth"
        )
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)
    axes.set_xscale("log", base=2)
    ticks = sorted({batch for _, batch in values})
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.set(title=title, xlabel="batch size", ylabel=unit)
    axes.grid(visible=True, which="both", alpha=0.25)
    axes.legend(fontsize=8)
    with atomic_output(path) as temporary:
        figure.savefig(temporary, dpi=120)
    plt.close(figure)
    return path
