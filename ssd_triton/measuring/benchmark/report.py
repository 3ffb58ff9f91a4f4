"""Writes tables and plots of a benchmark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from ssd_triton.common.report import ReportFolder, Table, log2_axis
from ssd_triton.measuring.benchmark.run import Limit
from ssd_triton.measuring.benchmark.timing import Timing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Values = Mapping[tuple[str, int], float]
"""Values by variant and batch size."""


def write_report(
    folder: Path, timings: Sequence[Timing], limit: Limit, environment: Mapping[str, str], baseline: str
) -> list[Path]:
    """Write ``benchmark.csv``, ``benchmark.json`` and two pictures, and return their paths.

    Args:
        folder: Folder of the report.
        timings: Times of every variant at every batch size.
        limit: The physical limit of the device.
        environment: See :func:`ssd_triton.measuring.benchmark.timing.device_environment`.
        baseline: Variant to which the speed-up is relative.
    """
    rows = [one.to_dict() for one in timings]
    report = ReportFolder(folder)
    report.csv("benchmark.csv", rows)
    report.json("benchmark.json", {"machine": dict(environment), "limit": asdict(limit), "rows": rows})
    rates = {(one.variant, one.batch): one.images_per_s for one in timings}
    relative = {key: rate / rates[baseline, key[1]] for key, rate in rates.items()}
    device = environment["device"]
    title = f"Acceleration relative to {baseline}, {device}"
    report.picture("images_per_s.png", lambda figure: _draw_rates(figure, rates, f"Images a second, {device}", limit))
    report.picture("acceleration.png", lambda figure: _draw_acceleration(figure, relative, title, baseline))
    return report.written


def rates_table(timings: Sequence[Timing]) -> Table:
    """Return a table of images a second, by variant and batch size."""
    batches = sorted({one.batch for one in timings})
    rates = {(one.variant, one.batch): one.images_per_s for one in timings}
    rows = [
        [variant, *(f"{rates[variant, batch]:,.{0 if rates[variant, batch] > 100 else 2}f}" for batch in batches)]
        for variant in dict.fromkeys(one.variant for one in timings)
    ]
    return Table(["images/s at batch", *map(str, batches)], rows)


def _draw_rates(figure: Figure, rates: Values, title: str, limit: Limit) -> None:
    """Draw a line over batch size for each variant, and the limits of the device."""
    axes = figure.subplots()
    batches = _draw_lines(figure, rates)
    for precision, style in zip(limit.matrix_tera_per_s, ("k--", "k:"), strict=False):
        limits = [limit.images_per_s(batch, precision) for batch in batches]
        axes.plot(batches, limits, style, linewidth=1, label=f"limit in {precision}: matrix rate, bandwidth")
    axes.set(title=title, ylabel="images/s", yscale="log")
    axes.legend()


def _draw_acceleration(figure: Figure, relative: Values, title: str, baseline: str) -> None:
    axes = figure.subplots()
    _draw_lines(figure, relative)
    axes.set(title=title, ylabel=f"times {baseline}", ylim=(0, None))
    axes.legend()


def _draw_lines(figure: Figure, values: Values) -> list[int]:
    """Draw a line for each variant, and return the batch sizes."""
    axes, batches = figure.axes[0], sorted({batch for _, batch in values})
    for variant in dict.fromkeys(name for name, _ in values):
        own = [batch for batch in batches if (variant, batch) in values]
        axes.plot(own, [values[variant, batch] for batch in own], marker="o", label=variant)
    log2_axis(axes, batches)
    axes.set_xlabel("batch size")
    return batches
