"""The history of a training, written while it runs: two tables and a picture of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssd_triton.common.report import ReportFolder
from ssd_triton.evaluation.metrics import Metrics

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class LogRow:
    """Means over the steps since the previous row; losses are per positive default box."""

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
        """Take pycocotools' figures."""
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
    """The progress of a training, and all its figures.

    Attributes:
        step: Steps done.
        seconds: Time spent on these steps in all runs, validation included.
        best_score: Mean AP of the best snapshot over the validation sets, by their weights; None before the first.
        best_step: Step of the best snapshot.
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
        """Convert to numbers, strings, lists and dictionaries."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Record:
        """The inverse of :meth:`to_dict`."""
        log = [LogRow(**row) for row in values["log"]]
        validations = [ValidationRow(**row) for row in values["validations"]]
        return cls(**{**values, "log": log, "validations": validations})

    def write(self, folder: Path) -> None:
        """Write ``log.csv``, ``validations.csv`` and ``curves.png``, as far as there is anything to write."""
        report = ReportFolder(folder)
        for name, rows in (("log.csv", self.log), ("validations.csv", self.validations)):
            if rows:
                report.csv(name, [asdict(row) for row in rows])
        if self.log:
            report.picture("curves.png", self._draw, rows=2, columns=2)

    def _draw(self, figure: Figure) -> None:
        losses, precision, rates, speed = figure.subplots(2, 2).flat
        steps = [row.step for row in self.log]
        losses.plot(steps, [row.boxes_loss for row in self.log], label="boxes (smooth L1)")
        losses.plot(steps, [row.classes_loss for row in self.log], label="classes (cross-entropy)")
        losses.set(title="Loss per positive default box", yscale="log")
        for name in dict.fromkeys(row.dataset for row in self.validations):
            rows = [row for row in self.validations if row.dataset == name]
            precision.plot([row.step for row in rows], [row.ap for row in rows], marker="o", label=name)
        if self.best_score is not None:
            precision.axvline(self.best_step, color="k", linestyle=":", linewidth=1, label="best snapshot")
        precision.set(title="Validation: AP (IoU 0.50 to 0.95)", ylim=(0, None))
        rates.plot(steps, [row.head_lr for row in self.log], label="new layers")
        rates.plot(steps, [row.backbone_lr for row in self.log], label="backbone")
        rates.set(title="Learning rate")
        speed.plot(steps, [row.images_per_s for row in self.log], label="images/s")
        speed.set(title="Training throughput, images/s", ylim=(0, None))
        for axes in (losses, precision, rates, speed):
            axes.set_xlabel("step")
            if axes.get_legend_handles_labels()[0]:
                axes.legend()
