"""Writes the report of a sweep: a table of medians as CSV, plots, a page and a summary in Markdown."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ssd_triton.common.files import relative_to_cwd
from ssd_triton.common.journal import read_fingerprint
from ssd_triton.common.machine import describe_machine
from ssd_triton.common.model_names import DETECTOR
from ssd_triton.common.report import Bullets, Heading, Json, Picture, ReportFolder, Table, html_page, markdown
from ssd_triton.measuring.sweeps import report_tables as tables
from ssd_triton.measuring.sweeps.analysis import ENSEMBLE, best_by_batch, bottlenecks, members, rates_of
from ssd_triton.measuring.sweeps.comparison import Change, change_table, verdict
from ssd_triton.measuring.sweeps.errors import SweepError
from ssd_triton.measuring.sweeps.measurements import MEASUREMENTS, read_facts, read_measurements, write_facts
from ssd_triton.measuring.sweeps.plots import all_pictures, draw_changes
from ssd_triton.measuring.sweeps.point_summary import BAND, METRICS, PointSummary, summarize, with_figures
from ssd_triton.measuring.sweeps.sweep_file import BARE

_CAPTIONS = {
    "images_per_s.png": "Images a second over batch size",
    "acceleration.png": "Acceleration",
    "latency.png": "Latency over throughput",
    "time.png": "Where the time of a request goes",
    "overhead.png": "What the server costs",
    "accuracy.png": "Accuracy against speed",
    "settings.png": "Settings",
}
BareRates = Mapping[tuple[str, int], float]
"""Images a second of the detector without a server, by variant and batch size."""


def write_report(
    folder: Path,
    *,
    output: Path | None = None,
    bare: BareRates | None = None,
    accuracy: Mapping[str, float] | None = None,
) -> str:
    """Write ``table.csv``, the plots, ``report.html`` and ``summary.md`` of a sweep.

    Args:
        folder: Folder of the results.
        output: Folder of the report; None writes it beside the results, and keeps ``bare`` and ``accuracy`` there for
            the next report.
        bare: Rates from :func:`read_benchmark`; the sweep's own turns without a server take precedence. None takes
            those of the previous report.
        accuracy: COCO AP by variant from :func:`read_accuracy`; None takes those of the previous report.

    Returns:
        The text of ``summary.md``.

    Raises:
        SweepError: There are no results.
        ReportError: The report cannot be written.
    """
    facts, summaries = read_facts(folder), summarize(read_measurements(folder))
    shown = with_figures(summaries)
    if not shown:
        raise SweepError(f"no stable measurement in {relative_to_cwd(folder)}: give the sweep longer windows")
    if bare is not None:
        facts["bare"] = [[variant, batch, rate] for (variant, batch), rate in bare.items()]
    if accuracy is not None:
        facts["accuracy"] = dict(accuracy)
    if output is None:
        write_facts(folder, facts)
    alone = {**{(variant, batch): rate for variant, batch, rate in facts.get("bare", ())}, **rates_of(shown, BARE)}
    report = ReportFolder(output or folder)
    report.csv("table.csv", [_csv_row(summary) for summary in summaries])
    drawn = all_pictures(shown, alone, facts.get("accuracy", {}))
    pictures = [name for name, (draw, columns) in drawn.items() if report.picture(name, draw, columns=columns)]
    head = (str(facts.get("description", "")), f"{_machine(facts)}. {BAND}", Bullets(_remarks(facts, summaries)))
    found = _tables(shown, alone)
    text = markdown(*head, *found)
    report.text("summary.md", text)
    about = {"fingerprint": read_fingerprint(folder / MEASUREMENTS), **facts}
    shots = [Picture(name, _CAPTIONS[name]) for name in pictures]
    page = html_page("Performance", *head, *shots, *found, Heading("What the figures belong to"), Json(about))
    report.text("report.html", page)
    return text


def write_comparison(folder: Path, changes: Sequence[Change]) -> str:
    """Write ``comparison.md`` and ``comparison.png``, and return the text of the former."""
    report = ReportFolder(folder)
    text = markdown(f"{verdict(changes)} {BAND}", change_table(changes))
    report.text("comparison.md", text)
    height_inch = 1.5 + 0.17 * len(changes)
    report.picture("comparison.png", lambda figure: draw_changes(figure, changes), height_inch=height_inch)
    return text


def read_benchmark(path: Path) -> dict[tuple[str, int], float]:
    """Read images a second by variant and batch size from ``benchmark.csv`` of ``ssd-triton benchmark``.

    Raises:
        SweepError: The file is missing, or is not a benchmark.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return {(row["variant"], int(row["batch"])): float(row["images_per_s"]) for row in csv.DictReader(file)}
    except (OSError, KeyError, ValueError) as error:
        raise SweepError(
            f"expected benchmark.csv of ssd-triton benchmark, got {relative_to_cwd(path)}: {error}"
        ) from error


def read_accuracy(folder: Path) -> dict[str, float]:
    """Read COCO AP by variant from the folder of ``ssd-triton compare-accuracy``.

    Raises:
        SweepError: The folder holds no figures.
    """
    found = {}
    for path in sorted(folder.glob("*/metrics.json")):
        try:
            found[path.parent.name] = float(json.loads(path.read_text(encoding="utf-8"))["figures"]["AP"])
        except (OSError, KeyError, ValueError, TypeError) as error:
            raise SweepError(f"cannot read AP from {relative_to_cwd(path)}: {error}") from error
    if not found:
        raise SweepError(f"no VARIANT/metrics.json in {relative_to_cwd(folder)}: run 'ssd-triton compare-accuracy'")
    return found


def _tables(shown: Sequence[PointSummary], bare: BareRates) -> list[Table]:
    models = (DETECTOR, ENSEMBLE, "ssd_frames", BARE)
    compares_settings = len({one.point.setting for one in shown}) > 1
    found = [
        *(tables.throughput_table(shown, model) for model in models if best_by_batch(shown, model)),
        tables.overhead_table(shown, bare),
        tables.time_table(shown),
        *([tables.settings_table(shown)] if compares_settings else []),
        tables.latency_table(shown),
    ]
    return [table for table in found if table.rows]


def _csv_row(summary: PointSummary) -> dict[str, object]:
    row: dict[str, object] = {
        **vars(summary.point),
        "request_rate": summary.request_rate,
        "rounds": summary.rounds,
        "stable_rounds": summary.stable_rounds,
        "note": summary.note,
    }
    for metric in METRICS:
        figure = summary.figures.get(metric)
        row[metric] = _rounded(figure.value if figure else None)
        row[f"{metric}_band"] = _rounded(figure.band if figure else None)
    for member in members(summary) if summary.figures else ():
        name = member.stage.model
        row[f"{name}_queue_ms"] = _rounded(member.stage.queue_ms)
        row[f"{name}_compute_ms"] = _rounded(member.stage.compute_ms)
        row[f"{name}_batch"] = _rounded(member.stage.batch)
        row[f"{name}_busy"] = _rounded(member.busy)
    return row


def _rounded(value: float | None) -> object:
    return "" if value is None else float(f"{value:.4g}")


def _machine(facts: Mapping[str, Any]) -> str:
    server = f", tritonserver {facts['tritonserver']}" if "tritonserver" in facts else ""
    return describe_machine(facts.get("environment", {})) + server


def _remarks(facts: Mapping[str, Any], summaries: Sequence[PointSummary]) -> list[str]:
    shown = with_figures(summaries)
    remarks = bottlenecks(shown)
    remarks += [f"`{variant}` was skipped: {reason}." for variant, reason in facts.get("skipped", {}).items()]
    remarks += [
        f"Left out: {summary.point}, no figure in {summary.rounds} rounds ({summary.note})."
        for summary in summaries
        if not summary.figures
    ]
    remarks += [
        f"{summary.point}: {summary.stable_rounds} of {summary.rounds} rounds count ({summary.note})."
        for summary in shown
        if summary.stable_rounds < summary.rounds
    ]
    return remarks
