"""Tables and files of an evaluation of braking."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from statistics import median

from ssd_triton.common.files import atomic_output
from ssd_triton.common.machine import cores, processor
from ssd_triton.simulation.judging.evaluate import Outcome, Row, Setup
from ssd_triton.simulation.judging.plots import write_plots

_HEADER = (
    "scenario",
    "rule",
    "runs",
    "contacts",
    "worst impact, limit (km/h)",
    "TTC at BRAKE, median (s)",
    "warning lead, min / median (s)",
    "false brakes",
    "verdict",
)


def describe_setup(setup: Setup, server: str | None) -> dict[str, object]:
    """What the figures belong to, by name.

    Args:
        setup: What all drives shared.
        server: The variant or address that detected; None for the truth with noise.
    """
    noise, camera = setup.config.world.noise, setup.camera
    truth = f"truth, box sides +- {noise.box_px:g} px (1 sigma), {noise.miss_rate:.0%} missed"
    return {
        "detections": truth if server is None else f"rendered frames through the server ({server})",
        "frames a second": setup.fps,
        "latency from camera to brake demand, s": setup.latency_s,
        "camera": f"{camera.width_px}x{camera.height_px} px, {camera.height_m:g} m high",
        "processor": f"{processor()}, {cores()} cores",
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def write_report(folder: Path, stem: str, title: str, rows: Sequence[Row], facts: Mapping[str, object]) -> list[Path]:
    """Write ``STEM.csv`` (a line a run), ``STEM.json``, ``STEM.md`` and plots, and return their paths.

    Args:
        folder: Where they go.
        stem: How their names begin.
        title: Of the report and its plots.
        rows: What was driven.
        facts: What the figures belong to.
    """
    runs = [_run_record(row, outcome) for row in rows for outcome in row.outcomes]
    names = [folder / f"{stem}{suffix}" for suffix in (".csv", ".json", ".md")]
    with atomic_output(names[0]) as path, path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(runs[0]))
        writer.writeheader()
        writer.writerows(runs)
    record = {"title": title, "facts": dict(facts), "rows": [_row_record(row) for row in rows], "runs": runs}
    with atomic_output(names[1]) as path:
        path.write_text(json.dumps(record, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    with atomic_output(names[2]) as path:
        path.write_text(markdown(title, rows, facts), encoding="utf-8")
    return names + write_plots(folder, stem, title, rows)


def markdown(title: str, rows: Sequence[Row], facts: Mapping[str, object]) -> str:
    """The table with its title, what it belongs to, and what failed."""
    lines = [f"# {title}", "", *(f"- {name}: {value}" for name, value in facts.items()), "", table(rows)]
    if failed := failures(rows):
        lines += ["", "## What failed", "", *failed]
    return "\n".join(lines) + "\n"


def table(rows: Sequence[Row]) -> str:
    """Markdown, a line a scenario, and what the marks mean."""
    lines = [f"| {' | '.join(_HEADER)} |", "|---" * len(_HEADER) + "|"]
    lines += [f"| {' | '.join(_cells(row))} |" for row in rows]
    if any(not row.judged for row in rows):
        lines += ["", "reported: the rule asks for nothing there, and the row counts for nothing."]
    offsets = {offset for row in rows for offset in row.false_brakes or ()}
    if offsets - {0.0}:
        lines += ["", "Degrees in 'false brakes': the camera looks down by so much more than its calibration says."]
    return "\n".join(lines)


def failures(rows: Sequence[Row]) -> list[str]:
    """A line for each row that failed, with its first failure."""
    lines = []
    for row in rows:
        bad = [outcome for outcome in row.outcomes if outcome.failures]
        if bad:
            where = f"seed {bad[0].seed}, pitch offset {bad[0].pitch_offset_deg:g} degrees"
            reasons = "; ".join(bad[0].failures)
            lines.append(f"- {row.scenario.name}: {row.failed} of {len(row.outcomes)} runs; first {where}: {reasons}")
    return lines


def _cells(row: Row) -> list[str]:
    scenario, criterion, leads = row.scenario, row.scenario.criterion, row.warning_leads_s
    impact = f"{max(row.impacts_kmh):.1f}" if row.impacts_kmh else "none"
    limit = {"no contact": "0", "residual speed": f"{criterion.max_impact_kmh:g}"}.get(criterion.verdict, "none")
    ttc_s, false = row.ttc_at_brake_s, row.false_brakes
    counts = "-"
    if false is not None:
        counts = ", ".join(f"{count} at {offset:+g}°" if offset else str(count) for offset, count in false.items())
    return [
        scenario.name,
        criterion.rule,
        str(len(row.outcomes)),
        str(len(row.impacts_kmh)),
        f"{impact}, {limit}",
        "-" if ttc_s is None else f"{ttc_s:.2f}",
        f"{min(leads):.2f} / {median(leads):.2f}" if leads else "-",
        counts,
        row.verdict,
    ]


def _row_record(row: Row) -> dict[str, object]:
    criterion, leads = row.scenario.criterion, row.warning_leads_s
    return {
        "scenario": row.scenario.name,
        "rule": criterion.rule,
        "physics": criterion.physics,
        "criterion": criterion.verdict,
        "ego_speed_kmh": row.scenario.ego_speed_kmh,
        "runs": len(row.outcomes),
        "contacts": len(row.impacts_kmh),
        "worst_impact_kmh": max(row.impacts_kmh, default=None),
        "max_impact_kmh": criterion.max_impact_kmh,
        "median_ttc_at_brake_s": _finite(row.ttc_at_brake_s),
        "min_warning_lead_s": min(leads, default=None),
        "median_warning_lead_s": median(leads) if leads else None,
        "false_brakes_by_pitch_offset_deg": row.false_brakes,
        "judged": row.judged,
        "failed_runs": row.failed,
        "verdict": row.verdict,
    }


def _run_record(row: Row, outcome: Outcome) -> dict[str, object]:
    values = {name: value for name, value in asdict(outcome).items() if name not in {"moments", "failures"}}
    figures = {name: _finite(value) for name, value in values.items()}
    return {"scenario": row.scenario.name, **figures, "failures": "; ".join(outcome.failures)}


def _finite(value: float | None) -> float | None:
    """JSON knows no infinity; there is none without targets, or when nothing closes in."""
    return value if value is None or math.isfinite(value) else None
