"""Plots of an evaluation of braking; there are none where matplotlib is not installed."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ssd_triton.common.files import atomic_output
from ssd_triton.driving.braking.state import State
from ssd_triton.driving.drawing.state_colours import STATE_COLOURS
from ssd_triton.simulation.judging.evaluate import Outcome, Row

_R152_WARNING_LEAD_S = 0.8
"""UN R152 5.2.1.1: warning at least 0.8 s before emergency braking, for cars as targets."""
_LONGEST_TTC_S = 10.0
_ROW_HEIGHT_INCH = 0.22
_PASSED_COLOUR, _FAILED_COLOUR = "#2563c9", "#dc2626"


def write_plots(folder: Path, stem: str, title: str, rows: Sequence[Row]) -> list[Path]:
    """Draw impact speeds against their limits, warning leads, least gaps, and a time line for each row that failed.

    Time lines of an earlier evaluation of the same name are removed.

    Args:
        folder: Where the PNG files go.
        stem: How their names begin.
        title: Of the evaluation.
        rows: What was driven.
    """
    for old in folder.glob(f"{stem}.failed-*.png"):
        old.unlink()
    if importlib.util.find_spec("matplotlib") is None:
        return []
    written = []
    contact_rows = [row for row in rows if row.scenario.criterion.verdict in {"no contact", "residual speed"}]
    regulated = [row for row in contact_rows if row.scenario.criterion.rule.startswith("UN R152 5.2")]
    if regulated:
        written.append(_plot_impacts(folder / f"{stem}.impact_speed.png", title, regulated))
    leads = {row: [(lead, run) for run in row.outcomes if (lead := run.warning_lead_s) is not None] for row in rows}
    braked = {row: values for row, values in leads.items() if values}
    if braked:
        path = folder / f"{stem}.warning_lead.png"
        limit = (_R152_WARNING_LEAD_S, "UN R152, car as target: at least 0.8 s")
        written.append(_plot_rows(path, f"{title}: warning lead", "from WARN to BRAKE, s", braked, limit))
    gaps = {row: [(run.min_gap_m, run) for run in row.outcomes if math.isfinite(run.min_gap_m)] for row in rows}
    path = folder / f"{stem}.min_gap.png"
    written.append(_plot_rows(path, f"{title}: least gap", "to any target, m (0: contact)", gaps, None))
    for row in rows:
        failed = next((run for run in row.outcomes if run.failures), None)
        if failed is not None:
            written.append(_plot_time_line(folder / f"{stem}.failed-{row.scenario.name}.png", row, failed))
    return written


def _pyplot() -> Any:
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    return plt


def _save(plt: Any, figure: Any, path: Path) -> Path:
    with atomic_output(path) as temporary:
        figure.savefig(temporary, dpi=120)
    plt.close(figure)
    return path


def _colour(run: Outcome) -> str:
    return _FAILED_COLOUR if run.failures else _PASSED_COLOUR


def _plot_impacts(path: Path, title: str, rows: Sequence[Row]) -> Path:
    """Closing speed at contact over the ego's speed, a panel a rule; runs without contact lie at 0."""
    plt = _pyplot()
    rules = list(dict.fromkeys(row.scenario.criterion.rule for row in rows))
    figure, panels = plt.subplots(
        1, len(rules), figsize=(4.6 * len(rules), 4.4), sharey=True, squeeze=False, layout="constrained"
    )
    for axes, rule in zip(panels[0], rules, strict=True):
        of_rule = sorted(
            (row for row in rows if row.scenario.criterion.rule == rule), key=lambda row: row.scenario.ego_speed_kmh
        )
        speeds = [row.scenario.ego_speed_kmh for row in of_rule]
        limits = [row.scenario.criterion.max_impact_kmh for row in of_rule]
        axes.plot(speeds, limits, "k_", markersize=18, markeredgewidth=2, label="limit")
        for row in of_rule:
            axes.scatter(
                [row.scenario.ego_speed_kmh] * len(row.outcomes),
                [run.impact_kmh or 0.0 for run in row.outcomes],
                c=[_colour(run) for run in row.outcomes],
                s=14,
                alpha=0.6,
                zorder=3,
            )
        axes.plot([0, max(speeds)], [0, max(speeds)], color="grey", linewidth=1, linestyle=":", label="no braking")
        axes.set(title=rule, xlabel="speed of the ego, km/h")
        axes.title.set_fontsize(9)
        axes.grid(visible=True, alpha=0.25)
        axes.legend(fontsize=8)
    panels[0][0].set_ylabel("closing speed at contact, km/h (0: none)")
    figure.suptitle(f"{title}: impact speed")
    return _save(plt, figure, path)


def _plot_rows(
    path: Path,
    title: str,
    label: str,
    values: dict[Row, list[tuple[float, Outcome]]],
    limit: tuple[float, str] | None,
) -> Path:
    """A dot for each run, a line a scenario."""
    plt = _pyplot()
    figure, axes = plt.subplots(figsize=(8, 1.6 + _ROW_HEIGHT_INCH * len(values)), layout="constrained")
    for place, pairs in enumerate(values.values()):
        colours = [_colour(run) for _, run in pairs]
        axes.scatter([value for value, _ in pairs], [place] * len(pairs), c=colours, s=12, alpha=0.6)
    axes.set_yticks(range(len(values)), [row.scenario.name for row in values], fontsize=8)
    axes.set_ylim(len(values) - 0.5, -0.5)
    axes.set_xlim(left=0)
    if limit is not None:
        axes.axvline(limit[0], color="black", linewidth=1, linestyle="--", label=limit[1])
        axes.legend(fontsize=8)
    axes.set(title=title, xlabel=label)
    axes.grid(visible=True, alpha=0.25)
    return _save(plt, figure, path)


def _plot_time_line(path: Path, row: Row, run: Outcome) -> Path:
    """Speed, gap and time to collision of a run that failed, over its states."""
    plt = _pyplot()
    times = [moment.time_s for moment in run.moments]
    panels = (
        ("ego, km/h", [moment.speed_kmh for moment in run.moments]),
        ("gap, m", [moment.gap_m for moment in run.moments]),
        ("true TTC, s", [moment.ttc_s if moment.ttc_s <= _LONGEST_TTC_S else math.nan for moment in run.moments]),
    )
    figure, lines = plt.subplots(len(panels), 1, figsize=(8, 6), sharex=True, layout="constrained")
    for axes, (label, values) in zip(lines, panels, strict=True):
        axes.plot(times, values, color="black")
        for state in (State.WARN, State.BRAKE):
            told = [moment.state is state for moment in run.moments]
            colour = [channel / 255 for channel in STATE_COLOURS[state]]
            axes.fill_between(
                times,
                0,
                1,
                where=told,
                step="post",
                transform=axes.get_xaxis_transform(),
                color=colour,
                alpha=0.3,
                label=state.name,
            )
        axes.set_ylabel(label)
        axes.set_ylim(bottom=0)
        axes.grid(visible=True, alpha=0.25)
    lines[0].legend(fontsize=8)
    lines[-1].set_xlabel("time, s")
    figure.suptitle(
        f"{row.scenario.name}, seed {run.seed}, pitch offset {run.pitch_offset_deg:g}°:\n{'; '.join(run.failures)}",
        fontsize=10,
    )
    return _save(plt, figure, path)
