"""The folder that an evaluation leaves: COCO results, figures, and a page with plots and the worst misses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as PilImage

from ssd_triton.common.files import atomic_output, relative_to_cwd
from ssd_triton.evaluation.errors import EvaluationError
from ssd_triton.evaluation.evaluate import Evaluation
from ssd_triton.evaluation.metrics import IOU_50, IOU_75, Metrics
from ssd_triton.evaluation.misses import DEFINITION, Miss, draw_miss, worst_misses

_DEFAULT_MISSES = 12
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; color: #1b2430; }
table { border-collapse: collapse; }
td, th { padding: .15rem .8rem; border-bottom: 1px solid #d7dde5; text-align: left; }
td.number { text-align: right; font-variant-numeric: tabular-nums; } img { max-width: 100%; }
figure { margin: 1.5rem 0; } pre { overflow-x: auto; background: #f3f5f8; padding: 1rem; font-size: 12px; }
"""
_REFUSED = "<h2>Refused images</h2><p>They count as images without detections.</p>"


def write_report(evaluation: Evaluation, folder: Path, *, misses: int = _DEFAULT_MISSES) -> list[Path]:
    """Write ``detections.json``, ``metrics.json``, ``report.html`` and its pictures.

    Args:
        evaluation: What to report.
        folder: Where to.
        misses: Pictures of the worst images, at most.

    Returns:
        The three files.

    Raises:
        EvaluationError: They cannot be written; the kept answers are not touched.
    """
    paths = [folder / name for name in ("detections.json", "metrics.json", "report.html")]
    with writing(folder):
        _write_text(paths[0], json.dumps(evaluation.results))
        _write_text(paths[1], json.dumps(evaluation.to_json(), indent=1) + "\n")
        _plot_precision(folder / "precision_recall.png", evaluation.metrics)
        worst = worst_misses(
            evaluation.dataset, evaluation.metrics, evaluation.results, misses, refused=evaluation.refused
        )
        for old in (folder / "misses").glob("*.jpg"):
            old.unlink()
        pictures = [_write_picture(folder, evaluation, miss) for miss in worst]
        _write_text(paths[2], _page(evaluation, list(zip(worst, pictures, strict=True))))
    return paths


def summary(evaluation: Evaluation) -> str:
    """The figures as text, one a line."""
    lines = [f"{evaluation.name}: {evaluation.dataset.set_name}"]
    lines += [f"{name:10} {_number(value)}" for name, value in evaluation.metrics.figures.items()]
    if evaluation.speed is not None:
        lines.append(_speed(evaluation))
    return "\n".join(lines)


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn a failure to write into a sentence.

    Raises:
        EvaluationError: The disk is full, for one.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None:  # PIL's own, about an image that cannot be read
            raise
        raise EvaluationError(
            f"cannot write the report to {relative_to_cwd(folder)} ({error.strerror}): the answers of the "
            "server are kept; make room and run the same command again"
        ) from error


def _write_text(path: Path, text: str) -> None:
    with atomic_output(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _write_picture(folder: Path, evaluation: Evaluation, miss: Miss) -> str:
    name = f"misses/{miss.image.id}.jpg"
    picture = draw_miss(evaluation.dataset, evaluation.results, miss)
    with atomic_output(folder / name) as temporary:
        PilImage.fromarray(picture).save(temporary, quality=88)
    return name


def _plot_precision(path: Path, metrics: Metrics) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    recall = np.linspace(0, 1, metrics.precision.shape[1])
    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    curves = {
        f"IoU 0.50 (AP {_number(metrics.figures['AP50'])})": metrics.precision[IOU_50],
        f"IoU 0.75 (AP {_number(metrics.figures['AP75'])})": metrics.precision[IOU_75],
        f"mean of IoU 0.50 to 0.95 (AP {_number(metrics.figures['AP'])})": metrics.precision.mean(axis=0),
    }
    for label, precision in curves.items():
        axes.plot(recall, precision, label=label)
    axes.set(title="Mean over the classes", xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1))
    axes.grid(visible=True, alpha=0.25)
    axes.legend(fontsize=9)
    with atomic_output(path) as temporary:
        figure.savefig(temporary, dpi=110)
    plt.close(figure)


def _page(evaluation: Evaluation, misses: list[tuple[Miss, str]]) -> str:
    figures = [(name, _number(value)) for name, value in evaluation.metrics.figures.items()]
    ranked = sorted(evaluation.metrics.classes, key=lambda one: (one.ap is None, -(one.ap or 0), one.name))
    classes = [(one.name, str(one.objects), _number(one.ap), _number(one.ap50)) for one in ranked]
    refused = [(name, reason) for name, reason in evaluation.refused.items()]
    pictures = "".join(
        f"<figure><img src='{escape(path)}' alt='' loading='lazy'><figcaption>{escape(miss.image.file_name)}: "
        f"{len(miss.missed)} objects missed, {len(miss.missed_large)} of them large; {len(miss.false_positives)} clear "
        "detections that find nothing</figcaption></figure>"
        for miss, path in misses
    )
    facts = json.dumps({key: value for key, value in evaluation.to_json().items() if key != "classes"}, indent=1)
    return "\n".join(
        [
            "<!doctype html>",
            f"<html lang='en'><meta charset='utf-8'><title>COCO evaluation of {escape(evaluation.name)}</title>",
            f"<style>{_STYLE}</style>",
            f"<h1>COCO evaluation of {escape(evaluation.name)}</h1>",
            f"<p>On {escape(evaluation.dataset.set_name)}. {escape(_speed(evaluation))}</p>",
            _table(("figure", ""), figures),
            "<figure><img src='precision_recall.png' alt='Precision over recall'></figure>",
            *([_REFUSED, _table(("file", "reason"), refused)] if refused else []),
            f"<h2>Worst misses</h2><p>{escape(DEFINITION)}</p>{pictures}",
            f"<h2>Classes</h2>{_table(('class', 'objects', 'AP', 'AP50'), classes)}",
            f"<h2>What the figures belong to</h2><pre>{escape(facts)}</pre></html>",
            "",
        ]
    )


def _table(header: tuple[str, ...], rows: list[Any]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in header)
    cells = [
        f"<td>{escape(first)}</td>" + "".join(f"<td class='number'>{escape(cell)}</td>" for cell in rest)
        for first, *rest in rows
    ]
    body = "".join(f"<tr>{row}</tr>" for row in cells)
    return f"<table><tr>{head}</tr>{body}</table>"


def _speed(evaluation: Evaluation) -> str:
    speed = evaluation.speed
    if speed is None:
        return ""
    return (
        f"{speed.images_per_s:.2f} images/s with {speed.in_flight} requests of {speed.batch} under way; latency p50 "
        f"{speed.p50_ms:.0f}, p95 {speed.p95_ms:.0f}, p99 {speed.p99_ms:.0f} ms"
    )


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"
