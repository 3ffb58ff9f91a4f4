"""Tables and files of an evaluation of braking."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median

from ssd_triton.common.machine import environment
from ssd_triton.common.report import Block, Bullets, Heading, ReportFolder, Table, markdown
from ssd_triton.simulation.judging.evaluate import DriveOutcome, ScenarioResult, Setup, false_warning_share
from ssd_triton.simulation.judging.plots import draw_pictures

_HEADER = (
    "scenario",
    "rule",
    "runs",
    "contacts",
    "worst impact, limit (km/h)",
    "TTC at BRAKE, median (s)",
    "warning lead, min / median (s)",
    "WARN before need, min / median (s)",
    "false WARN, drives (frames)",
    "false brakes",
    "verdict",
)


def describe_setup(setup: Setup, server: str | None) -> dict[str, object]:
    """Conditions under which the figures were measured, by name.

    Args:
        setup: Settings that all drives share.
        server: Variant or address of the detector; None for the ground truth with noise.
    """
    noise, camera = setup.config.simulation.noise, setup.camera
    truth = f"truth, box sides +- {noise.box_px:g} px (1 sigma), {noise.miss_rate:.0%} missed"
    machine = environment()
    return {
        "detections": truth if server is None else f"rendered frames through the server ({server})",
        "frames a second": setup.fps,
        "latency from camera to brake demand, s": setup.latency_s,
        "camera": f"{camera.width_px}x{camera.height_px} px, {camera.height_m:g} m high",
        "processor": f"{machine['processor']}, {machine['cores']} cores",
        "date": machine["date"],
    }


def write_report(
    folder: Path, stem: str, title: str, results: Sequence[ScenarioResult], facts: Mapping[str, object]
) -> list[Path]:
    """Write ``STEM.csv`` (a line a drive), ``STEM.json``, ``STEM.md`` and pictures, and return their paths.

    Args:
        folder: Folder of the report.
        stem: Start of the file names.
        title: Title of the report and its pictures.
        results: Scenarios and their drives.
        facts: Conditions under which the figures were measured.
    """
    runs = [_run_record(result, outcome) for result in results for outcome in result.outcomes]
    record = {"title": title, "facts": dict(facts), "rows": [_row_record(one) for one in results], "runs": runs}
    about = Bullets([f"{name}: {value}" for name, value in facts.items()])
    failed = failures(results)
    failed_blocks: list[Block] = [Heading("What failed"), Bullets(failed)] if failed else []
    report = ReportFolder(folder)
    report.csv(f"{stem}.csv", runs)
    report.json(f"{stem}.json", record)
    report.text(f"{stem}.md", markdown(Heading(title, 1), about, results_table(results), *failed_blocks))
    draw_pictures(report, stem, title, results)
    return report.written


def results_table(results: Sequence[ScenarioResult]) -> str:
    """A Markdown table with a line for each scenario, and an explanation of its marks."""
    notes = []
    if any(not result.judged for result in results):
        notes.append("reported: the rule has no criterion there, and the row cannot fail.")
    if {offset for result in results for offset in result.false_brakes or ()} - {0.0}:
        notes.append("Degrees in 'false brakes': how much farther down the camera looks than its calibration says.")
    quiet = [result for result in results if result.false_brakes is not None]
    if quiet:
        drives = sum(len(result.outcomes) for result in quiet)
        warned = sum(result.false_warnings for result in quiet)
        share = false_warning_share(results)
        notes.append(f"False WARN in {warned} of {drives} drives ({share:.1%}) on which nobody may brake.")
    return markdown(Table(_HEADER, [_cells(result) for result in results]), *notes).rstrip()


def failures(results: Sequence[ScenarioResult]) -> list[str]:
    """A line for each scenario that failed, with its first failure."""
    lines = []
    for result in results:
        first = next((outcome for outcome in result.outcomes if outcome.failures), None)
        if first is not None:
            where = f"seed {first.seed}, pitch offset {first.pitch_offset_deg:g} degrees"
            count = f"{result.failed} of {len(result.outcomes)} runs"
            lines.append(f"{result.scenario.name}: {count}; first {where}: {'; '.join(first.failures)}")
    return lines


def _cells(row: ScenarioResult) -> list[str]:
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
        _spread(leads),
        _spread(row.leads_before_need_s if false is None else []),
        f"{row.false_warnings} ({sum(outcome.false_warning_frames for outcome in row.outcomes)})",
        counts,
        row.verdict,
    ]


def _spread(values: Sequence[float]) -> str:
    return f"{min(values):.2f} / {median(values):.2f}" if values else "-"


def _row_record(row: ScenarioResult) -> dict[str, object]:
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
        "min_lead_before_need_s": min(row.leads_before_need_s, default=None),
        "median_lead_before_need_s": median(row.leads_before_need_s) if row.leads_before_need_s else None,
        "drives_with_false_warnings": row.false_warnings,
        "false_warning_frames": sum(outcome.false_warning_frames for outcome in row.outcomes),
        "false_warning_episodes": sum(outcome.false_warning_episodes for outcome in row.outcomes),
        "false_brakes_by_pitch_offset_deg": row.false_brakes,
        "judged": row.judged,
        "failed_runs": row.failed,
        "verdict": row.verdict,
    }


def _run_record(row: ScenarioResult, outcome: DriveOutcome) -> dict[str, object]:
    values = {name: value for name, value in asdict(outcome).items() if name not in {"moments", "failures"}}
    figures = {name: _finite(value) for name, value in values.items()}
    return {"scenario": row.scenario.name, **figures, "failures": "; ".join(outcome.failures)}


def _finite(value: float | None) -> float | None:
    """Turn infinity, which JSON lacks, into None; values are infinite without targets, or when nothing closes in."""
    return value if value is None or math.isfinite(value) else None
