"""What a training writes about itself while it runs: two tables and a picture of them."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt

from ssd_triton.common.files import atomic_output
from ssd_triton.evaluation.metrics import Metrics


@dataclass(frozen=True)
class LogRow:
    """Means over the steps since the row before; losses are per positive default box."""

    step: int
    loss: float
    boxes_loss: float
    classes_loss: float
    backbone_lr: float
    head_lr: float
    images_per_s: float
    device_busy_percent: float | None


@dataclass(frozen=True)
class ValidationRow:
    """Figures of one set at one step, in [0, 1]; None where the set has no such object."""

    step: int
    dataset: str
    ap: float
    ap50: float | None
    ap_small: float | None
    ap_medium: float | None
    ap_large: float | None

    @classmethod
    def of(cls, step: int, dataset: str, metrics: Metrics) -> ValidationRow:
        """From pycocotools' figures."""
        figures = metrics.figures
        return cls(
            step,
            dataset,
            metrics.ap,
            figures["AP50"],
            figures["AP_small"],
            figures["AP_medium"],
            figures["AP_large"],
        )


@dataclass
class Record:
    """How far a training is, and all its figures.

    Attributes:
        step: Steps done.
        seconds: Spent on them, over all runs, validation included.
        best_score: Of the best snapshot: the mean AP of the validation sets by their weights; None before the first.
        best_step: When it was taken.
        log: Rows so far.
        validations: Rows so far.
    """

    step: int = 0
    seconds: float = 0.0
    best_score: float | None = None
    best_step: int = 0
    log: list[LogRow] = field(default_factory=list)
    validations: list[ValidationRow] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Numbers, texts and lists only."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Record:
        """The inverse of :meth:`to_dict`."""
        log = [LogRow(**row) for row in values["log"]]
        validations = [ValidationRow(**row) for row in values["validations"]]
        return cls(**{**values, "log": log, "validations": validations})

    def write(self, folder: Path) -> None:
        """Write ``log.csv``, ``validations.csv`` and ``curves.png``, as far as there is anything to write."""
        _write_csv(folder / "log.csv", self.log)
        _write_csv(folder / "validations.csv", self.validations)
        if self.log:
            _plot(folder / "curves.png", self)


def _write_csv(path: Path, rows: Sequence[LogRow] | Sequence[ValidationRow]) -> None:
    if not rows:
        return
    with atomic_output(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(asdict(rows[0])))
        writer.writeheader()
        writer.writerows(
            {key: f"{value:.6g}" if isinstance(value, float) else value for key, value in asdict(row).items()}
            for row in rows
        )


def _plot(path: Path, record: Record) -> None:
    figure, grid = plt.subplots(2, 2, figsize=(11, 7), layout="constrained")
    steps = [row.step for row in record.log]
    losses, precision, rates, speed = grid.flat
    losses.plot(steps, [row.boxes_loss for row in record.log], label="boxes (smooth L1)")
    losses.plot(steps, [row.classes_loss for row in record.log], label="classes (cross-entropy)")
    losses.set(title="Loss per positive default box", yscale="log")
    for name in dict.fromkeys(row.dataset for row in record.validations):
        rows = [row for row in record.validations if row.dataset == name]
        precision.plot([row.step for row in rows], [row.ap for row in rows], marker="o", label=name)
    if record.best_score is not None:
        precision.axvline(record.best_step, color="k", linestyle=":", linewidth=1, label="best snapshot")
    precision.set(title="Validation: AP (IoU 0.50 to 0.95)", ylim=(0, None))
    rates.plot(steps, [row.head_lr for row in record.log], label="new layers")
    rates.plot(steps, [row.backbone_lr for row in record.log], label="backbone")
    rates.set(title="Learning rate")
    speed.plot(steps, [row.images_per_s for row in record.log], label="images/s")
    speed.set(title="Training throughput, images/s", ylim=(0, None))
    for axes in grid.flat:
        axes.set_xlabel("step")
        axes.grid(visible=True, alpha=0.25)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=8)
    with atomic_output(path) as temporary:
        figure.savefig(temporary, dpi=110)
    plt.close(figure)
