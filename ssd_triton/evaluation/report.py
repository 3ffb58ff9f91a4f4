"""The report of an evaluation: a folder with COCO results, figures, and a page with plots and the worst misses."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ssd_triton.common.report import Block, Heading, Json, Picture, ReportFolder, Table, html_page
from ssd_triton.evaluation.evaluate import Evaluation
from ssd_triton.evaluation.metrics import IOU_50, IOU_75, Metrics
from ssd_triton.evaluation.misses import DEFINITION, Miss, draw_miss, worst_misses

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DEFAULT_MISSES = 12
_PRECISION = "precision_recall.png"


def write_report(evaluation: Evaluation, folder: Path, *, misses: int = _DEFAULT_MISSES) -> list[Path]:
    """Write ``detections.json``, ``metrics.json``, ``report.html`` and its pictures.

    Args:
        evaluation: What to report.
        folder: Folder of the report.
        misses: Pictures of the worst images, at most.

    Returns:
        The three files.

    Raises:
        ReportError: They cannot be written; the kept answers stay unchanged.
    """
    report = ReportFolder(folder)
    report.json("detections.json", evaluation.results, indent=None)
    report.json("metrics.json", evaluation.to_json())
    found = evaluation.metrics
    blocks = [Picture(_PRECISION, "Precision over recall")] if report.picture(_PRECISION, partial(_draw, found)) else []
    report.clear("misses/*.jpg")
    worst = worst_misses(evaluation.dataset, found, evaluation.results, misses, refused=evaluation.refused)
    for miss in worst:
        report.photo(_picture_of(miss), draw_miss(evaluation.dataset, evaluation.results, miss))
    title = f"COCO evaluation of {evaluation.name}"
    report.text("report.html", html_page(title, *_page(evaluation, blocks, worst)))
    return [folder / name for name in ("detections.json", "metrics.json", "report.html")]


def summary(evaluation: Evaluation) -> str:
    """The figures as text, one a line."""
    lines = [f"{evaluation.name}: {evaluation.dataset.set_name}"]
    lines += [f"{name:10} {figure(value)}" for name, value in evaluation.metrics.figures.items()]
    if evaluation.speed is not None:
        lines.append(_speed(evaluation))
    return "\n".join(lines)


def figure(value: float | None) -> str:
    """A figure to four places; a dash without ground truth."""
    return "–" if value is None else f"{value:.4f}"


def _picture_of(miss: Miss) -> str:
    return f"misses/{miss.image.id}.jpg"


def _draw(metrics: Metrics, canvas: Figure) -> None:
    axes = canvas.subplots()
    recall = np.linspace(0, 1, metrics.precision.shape[1])
    curves = {
        f"IoU 0.50 (AP {figure(metrics.figures['AP50'])})": metrics.precision[IOU_50],
        f"IoU 0.75 (AP {figure(metrics.figures['AP75'])})": metrics.precision[IOU_75],
        f"mean of IoU 0.50 to 0.95 (AP {figure(metrics.figures['AP'])})": metrics.precision.mean(axis=0),
    }
    for label, precision in curves.items():
        axes.plot(recall, precision, label=label)
    axes.set(title="Mean over the classes", xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1))
    axes.legend()


def _page(evaluation: Evaluation, pictures: Sequence[Picture], misses: Sequence[Miss]) -> list[Block | Picture | Json]:
    ranked = sorted(evaluation.metrics.classes, key=lambda one: (one.ap is None, -(one.ap or 0), one.name))
    refused: list[Block] = [
        Heading("Refused images"),
        "They count as images without detections.",
        Table(["file", "reason"], list(evaluation.refused.items())),
    ]
    facts = {key: value for key, value in evaluation.to_json().items() if key != "classes"}
    return [
        f"On {evaluation.dataset.set_name}. {_speed(evaluation)}",
        Table(["figure", ""], [(name, figure(value)) for name, value in evaluation.metrics.figures.items()]),
        *pictures,
        *(refused if evaluation.refused else []),
        Heading("Worst misses"),
        DEFINITION,
        *(Picture(_picture_of(miss), _caption(miss)) for miss in misses),
        Heading("Classes"),
        Table(
            ["class", "objects", "AP", "AP50"],
            [(one.name, str(one.objects), figure(one.ap), figure(one.ap50)) for one in ranked],
        ),
        Heading("What the figures belong to"),
        Json(facts),
    ]


def _caption(miss: Miss) -> str:
    return (
        f"{miss.image.file_name}: {len(miss.missed)} objects missed, {len(miss.missed_large)} of them large; "
        f"{len(miss.false_positives)} clear detections that find nothing"
    )


def _speed(evaluation: Evaluation) -> str:
    speed = evaluation.speed
    if speed is None:
        return ""
    return (
        f"{speed.images_per_s:.2f} images/s with {speed.in_flight} requests of {speed.batch} in flight; latency p50 "
        f"{speed.p50_ms:.0f}, p95 {speed.p95_ms:.0f}, p99 {speed.p99_ms:.0f} ms"
    )
