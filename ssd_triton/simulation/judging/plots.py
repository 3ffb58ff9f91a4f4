"""Pictures of an evaluation of braking."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from ssd_triton.common.report import BLUE, RED, ReportFolder
from ssd_triton.driving.braking.state import State
from ssd_triton.driving.drawing.state_colours import STATE_COLOURS
from ssd_triton.simulation.judging.evaluate import DriveOutcome, ScenarioResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_R152_WARNING_LEAD_S = 0.8
"""UN R152 5.2.1.1: warning at least 0.8 s before emergency braking, for cars as targets."""
_LONGEST_TTC_S = 10.0
_ROW_HEIGHT_INCH = 0.22

DrivesByScenario = Sequence[tuple[ScenarioResult, Sequence[tuple[float, DriveOutcome]]]]
"""A value for each drive of a scenario."""


def draw_pictures(report: ReportFolder, stem: str, title: str, results: Sequence[ScenarioResult]) -> None:
    """Draw impact speeds against their limits, warning leads, smallest gaps, and a time line of each failed scenario.

    Time lines of an earlier evaluation of the same name are removed.

    Args:
        report: Folder of the PNG files.
        stem: Start of the file names.
        title: Title of the evaluation.
        results: Scenarios and their drives.
    """
    report.clear(f"{stem}.failed-*.png")
    regulated = [
        result
        for result in results
        if result.scenario.criterion.verdict in {"no contact", "residual speed"}
        and result.scenario.criterion.rule.startswith("UN R152 5.2")
    ]
    if regulated:
        rules = list(dict.fromkeys(result.scenario.criterion.rule for result in regulated))
        draw = partial(_draw_impacts, title, rules, regulated)
        report.picture(f"{stem}.impact_speed.png", draw, columns=len(rules))
    leads = [
        (one, [(lead, run) for run in one.outcomes if (lead := run.warning_lead_s) is not None]) for one in results
    ]
    braked = [(one, values) for one, values in leads if values]
    if braked:
        draw = partial(_draw_values, f"{title}: warning lead", "from WARN to BRAKE, s", braked, _R152_WARNING_LEAD_S)
        report.picture(f"{stem}.warning_lead.png", draw, height_inch=_height_inch(braked))
    gaps = [(one, [(run.min_gap_m, run) for run in one.outcomes if math.isfinite(run.min_gap_m)]) for one in results]
    draw = partial(_draw_values, f"{title}: least gap", "to any target, m (0: contact)", gaps, None)
    report.picture(f"{stem}.min_gap.png", draw, height_inch=_height_inch(gaps))
    for result in results:
        failed = next((run for run in result.outcomes if run.failures), None)
        if failed is not None:
            name = f"{stem}.failed-{result.scenario.name}.png"
            report.picture(name, partial(_draw_time_line, result, failed), height_inch=6.0)


def _height_inch(values: DrivesByScenario) -> float:
    return 1.6 + _ROW_HEIGHT_INCH * len(values)


def _colour(run: DriveOutcome) -> str:
    return RED if run.failures else BLUE


def _draw_impacts(title: str, rules: Sequence[str], results: Sequence[ScenarioResult], figure: Figure) -> None:
    """Closing speed at contact over the ego's speed, a panel a rule; drives without contact lie at 0."""
    panels = figure.subplots(1, len(rules), sharey=True, squeeze=False)[0]
    for axes, rule in zip(panels, rules, strict=True):
        of_rule = [result for result in results if result.scenario.criterion.rule == rule]
        _draw_rule(axes, rule, sorted(of_rule, key=lambda result: result.scenario.ego_speed_kmh))
    panels[0].set_ylabel("closing speed at contact, km/h (0: none)")
    figure.suptitle(f"{title}: impact speed")


def _draw_rule(axes: Axes, rule: str, results: Sequence[ScenarioResult]) -> None:
    speeds = [result.scenario.ego_speed_kmh for result in results]
    limits = [result.scenario.criterion.max_impact_kmh for result in results]
    axes.plot(speeds, limits, "k_", markersize=18, markeredgewidth=2, label="limit")
    for result, speed in zip(results, speeds, strict=True):
        impacts = [run.impact_kmh or 0.0 for run in result.outcomes]
        colours = [_colour(run) for run in result.outcomes]
        axes.scatter([speed] * len(impacts), impacts, c=colours, s=14, alpha=0.6, zorder=3)
    axes.plot([0, max(speeds)], [0, max(speeds)], color="grey", linewidth=1, linestyle=":", label="no braking")
    axes.set(title=rule, xlabel="speed of the ego, km/h")
    axes.legend()


def _draw_values(title: str, label: str, values: DrivesByScenario, limit_s: float | None, figure: Figure) -> None:
    """A dot for each drive, a line a scenario."""
    axes = figure.subplots()
    for place, (_, pairs) in enumerate(values):
        colours = [_colour(run) for _, run in pairs]
        axes.scatter([value for value, _ in pairs], [place] * len(pairs), c=colours, s=12, alpha=0.6)
    axes.set_yticks(range(len(values)), [result.scenario.name for result, _ in values], fontsize=8)
    axes.set_ylim(len(values) - 0.5, -0.5)
    axes.set_xlim(left=0)
    if limit_s is not None:
        limit = f"UN R152, car as target: at least {limit_s:g} s"
        axes.axvline(limit_s, color="black", linewidth=1, linestyle="--", label=limit)
        axes.legend()
    axes.set(title=title, xlabel=label)


def _draw_time_line(result: ScenarioResult, run: DriveOutcome, figure: Figure) -> None:
    """Speed, gap and time to collision of a failed drive, over its states."""
    times = [moment.time_s for moment in run.moments]
    ttcs_s = [moment.ttc_s if moment.ttc_s <= _LONGEST_TTC_S else math.nan for moment in run.moments]
    panels = (
        ("ego, km/h", [moment.speed_kmh for moment in run.moments]),
        ("gap, m", [moment.gap_m for moment in run.moments]),
        ("true TTC, s", ttcs_s),
    )
    lines = figure.subplots(len(panels), 1, sharex=True)
    for axes, (label, values) in zip(lines, panels, strict=True):
        axes.plot(times, values, color="black")
        for state in (State.WARN, State.BRAKE):
            decided = [moment.state is state for moment in run.moments]
            colour = [channel / 255 for channel in STATE_COLOURS[state]]
            whole = {"step": "post", "transform": axes.get_xaxis_transform(), "alpha": 0.3}
            axes.fill_between(times, 0, 1, where=decided, color=colour, label=state.name, **whole)
        axes.set_ylabel(label)
        axes.set_ylim(bottom=0)
    lines[0].legend()
    lines[-1].set_xlabel("time, s")
    where = f"{result.scenario.name}, seed {run.seed}, pitch offset {run.pitch_offset_deg:g}°"
    figure.suptitle(f"{where}:\n{'; '.join(run.failures)}", fontsize=10)
