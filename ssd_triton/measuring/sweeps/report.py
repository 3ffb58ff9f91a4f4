"""The report of a sweep: a table of medians as CSV, plots, a page and a summary in Markdown."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from ssd_triton.common.files import atomic_output, relative_to_cwd
from ssd_triton.measuring.sweeps import tables as figures
from ssd_triton.measuring.sweeps.comparison import Change, change_table, verdict
from ssd_triton.measuring.sweeps.errors import SweepError
from ssd_triton.measuring.sweeps.plots import all_plots, plot_changes
from ssd_triton.measuring.sweeps.results import read_facts, read_rows
from ssd_triton.measuring.sweeps.summary import BAND, METRICS, Summary, summarize, with_figures
from ssd_triton.measuring.sweeps.sweep_file import BARE

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; color: #1b2430; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; } img { max-width: 100%; }
td, th { padding: .15rem .8rem; border-bottom: 1px solid #d7dde5; text-align: left; }
pre { overflow-x: auto; background: #f3f5f8; padding: 1rem; font-size: 12px; }
"""
_CAPTIONS = {
    "images_per_s.png": "Images a second over batch size",
    "acceleration.png": "Acceleration",
    "latency.png": "Latency over throughput",
    "time.png": "Where the time of a request goes",
    "overhead.png": "What the server costs",
    "accuracy.png": "Accuracy against speed",
    "settings.png": "Settings",
}


def write_report(
    folder: Path, *, bare: Mapping[tuple[str, int], float] | None = None, accuracy: Mapping[str, float] | None = None
) -> str:
    """Write ``table.csv``, the plots, ``report.html`` and ``summary.md`` beside the results of a sweep.

    Args:
        folder: Of the results.
        bare: Images a second of the detector without a server, by variant and batch size: see :func:`read_benchmark`.
            What the sweep measured of it itself counts more.
        accuracy: COCO AP by variant: see :func:`read_accuracy`.

    Returns:
        The text of ``summary.md``.

    Raises:
        SweepError: There are no results, or the report cannot be written.
    """
    facts, summaries = read_facts(folder), summarize(read_rows(folder))
    shown = with_figures(summaries)
    if not shown:
        raise SweepError(f"no stable measurement in {relative_to_cwd(folder)}: give the sweep longer windows")
    bare, accuracy = bare or {}, accuracy or {}
    try:
        _write_csv(folder / "table.csv", summaries)
        pictures = [name for name, draw in all_plots(shown, bare, accuracy).items() if draw(folder / name)]
        tables = _tables(shown, bare)
        text = _markdown(facts, summaries, tables)
        _write(folder / "summary.md", text)
        _write(folder / "report.html", _page(facts, summaries, tables, pictures))
    except OSError as error:
        raise SweepError(
            f"cannot write the report to {relative_to_cwd(folder)} ({error.strerror}): the measurements are kept; make "
            "room and run 'python perf/report.py' again"
        ) from error
    return text


def write_comparison(folder: Path, changes: Sequence[Change]) -> str:
    """Write ``comparison.md`` and ``comparison.png``, and return the text of the former."""
    text = f"{verdict(changes)} {BAND}\n\n{change_table(changes).markdown()}"
    _write(folder / "comparison.md", text)
    plot_changes(folder / "comparison.png", changes)
    return text


def read_benchmark(path: Path) -> dict[tuple[str, int], float]:
    """Images a second by variant and batch size, from ``benchmark.csv`` of ``tools/benchmark.py``.

    Raises:
        SweepError: It is missing or something else.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return {(row["variant"], int(row["batch"])): float(row["images_per_s"]) for row in csv.DictReader(file)}
    except (OSError, KeyError, ValueError) as error:
        raise SweepError(
            f"expected benchmark.csv of tools/benchmark.py, got {relative_to_cwd(path)}: {error}"
        ) from error


def read_accuracy(folder: Path) -> dict[str, float]:
    """COCO AP by variant, from the folder of ``tools/compare_accuracy.py``.

    Raises:
        SweepError: It holds no figures.
    """
    found = {}
    for path in sorted(folder.glob("*/metrics.json")):
        try:
            found[path.parent.name] = float(json.loads(path.read_text(encoding="utf-8"))["figures"]["AP"])
        except (OSError, KeyError, ValueError, TypeError) as error:
            raise SweepError(f"cannot read AP from {relative_to_cwd(path)}: {error}") from error
    if not found:
        raise SweepError(
            f"no VARIANT/metrics.json in {relative_to_cwd(folder)}: run 'python tools/compare_accuracy.py'"
        )
    return found


def _tables(shown: Sequence[Summary], bare: Mapping[tuple[str, int], float]) -> list[figures.Table]:
    models = (figures.DETECTOR, figures.ENSEMBLE, "ssd_frames", BARE)
    tables = [figures.throughput_table(shown, model) for model in models if figures.best_by_batch(shown, model)]
    alone = {**bare, **figures.bare_rates(shown)}
    tables.append(figures.overhead_table(shown, alone))
    tables.append(figures.time_table(shown))
    if len({one.point.setting for one in shown}) > 1:
        tables.append(figures.settings_table(shown))
    tables.append(figures.latency_table(shown))
    return [table for table in tables if table.rows]


def _write_csv(path: Path, summaries: Sequence[Summary]) -> None:
    with atomic_output(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        rows = [_csv_row(summary) for summary in summaries]
        writer = csv.DictWriter(file, list(dict.fromkeys(key for row in rows for key in row)))
        writer.writeheader()
        writer.writerows(rows)


def _csv_row(summary: Summary) -> dict[str, object]:
    row: dict[str, object] = {
        **vars(summary.point),
        "request_rate": _rounded(summary.request_rate),
        "rounds": summary.rounds,
        "stable_rounds": summary.stable_rounds,
        "note": summary.note,
    }
    for metric in METRICS:
        figure = summary.figures.get(metric)
        row[metric] = _rounded(figure.value) if figure else ""
        row[f"{metric}_band"] = _rounded(figure.band) if figure else ""
    for member in figures.members(summary) if summary.figures else ():
        name = member.stage.model
        row[f"{name}_queue_ms"] = _rounded(member.stage.queue_ms)
        row[f"{name}_compute_ms"] = _rounded(member.stage.compute_ms)
        row[f"{name}_batch"] = _rounded(member.stage.batch)
        row[f"{name}_busy"] = _rounded(member.busy)
    return row


def _rounded(value: float | None) -> object:
    return "" if value is None else float(f"{value:.4g}")


def _machine(facts: Mapping[str, Any]) -> str:
    machine = facts.get("environment", {})
    parts = [f"{machine.get('processor', 'unknown processor')}, {machine.get('cores', '?')} cores"]
    parts += [machine["gpu"]] if "gpu" in machine else []
    parts += [f"tritonserver {facts['tritonserver']}"] if "tritonserver" in facts else []
    parts += [f"Python {machine['python']}", str(machine["date"])[:10]] if "python" in machine else []
    return ", ".join(parts)


def _remarks(facts: Mapping[str, Any], summaries: Sequence[Summary]) -> list[str]:
    shown = with_figures(summaries)
    remarks = figures.bottlenecks(shown)
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


def _markdown(facts: Mapping[str, Any], summaries: Sequence[Summary], tables: Sequence[figures.Table]) -> str:
    remarks = "\n".join(f"- {remark}" for remark in _remarks(facts, summaries))
    head = f"{facts.get('description', '')}\n\n{_machine(facts)}. {BAND}\n\n{remarks}\n"
    return "\n".join([head, *(table.markdown() for table in tables)])


def _page(
    facts: Mapping[str, Any],
    summaries: Sequence[Summary],
    tables: Sequence[figures.Table],
    pictures: Sequence[str],
) -> str:
    remarks = "".join(f"<li>{escape(remark.replace('`', ''))}</li>" for remark in _remarks(facts, summaries))
    shown = "".join(
        f"<h2>{escape(_CAPTIONS[name])}</h2><img src='{escape(name)}' alt='{escape(_CAPTIONS[name])}'>"
        for name in pictures
    )
    return "\n".join(
        [
            "<!doctype html>",
            "<html lang='en'><meta charset='utf-8'><title>Performance</title>",
            f"<style>{_STYLE}</style><h1>Performance</h1>",
            f"<p>{escape(str(facts.get('description', '')))}</p><p>{escape(_machine(facts))}. {escape(BAND)}</p>",
            f"<ul>{remarks}</ul>{shown}",
            *(table.html() for table in tables),
            f"<h2>What the figures belong to</h2><pre>{escape(json.dumps(facts, indent=1))}</pre></html>",
            "",
        ]
    )


def _write(path: Path, text: str) -> None:
    with atomic_output(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
