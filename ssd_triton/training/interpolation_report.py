"""The report of an interpolation: a table, a picture, and the model card of the chosen weights."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssd_triton.common.files import relative_to_cwd, sha256_of
from ssd_triton.common.report import BLUE, GREEN, ORANGE, Bullets, Heading, ReportFolder, Table, markdown
from ssd_triton.simulation.judging.visibility import RenderedAnnotations
from ssd_triton.training.candidates import Candidate, Judge
from ssd_triton.training.model_card import CARD, COMMON_LIMITS, accuracy, head
from ssd_triton.training.validation import ValidationSet

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LISTED_CLASSES = ("person", "car")
Value = Callable[[Candidate], "float | None"]


@dataclass(frozen=True)
class Interpolation:
    """Averages of two networks, and the chosen one.

    Attributes:
        origins: Files of the first and the second network's weights.
        backbone: Backbone of both.
        labels: Class names by id, the background first.
        judge: Judge with the evaluation sets.
        max_loss: AP that the choice may lose against the first weights on photographs.
        candidates: Averages by share, and then other weights.
        chosen: One of them.
        shifts: Logits added in every average, by class name.
    """

    origins: tuple[Path, Path]
    backbone: str
    labels: Sequence[str]
    judge: Judge
    max_loss: float
    candidates: tuple[Candidate, ...]
    chosen: Candidate
    shifts: Mapping[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Figures by name, with files, sets and criteria."""
        return {
            "origins": [{"path": relative_to_cwd(path), "sha256": sha256_of(path)} for path in self.origins],
            "sets": [one.source.name for one in self.judge.sets],
            "criteria": vars(self.judge.criteria),
            "max_loss": self.max_loss,
            "shifts": dict(self.shifts),
            "chosen": self.chosen.name,
            "candidates": [one.to_dict() for one in self.candidates],
        }


def candidates_table(interpolation: Interpolation) -> Table:
    """Table of all figures, one row for each candidate."""
    columns = []
    for one, truth in zip(interpolation.judge.sets, interpolation.judge.rendered, strict=True):
        name = _set_name(one, truth)
        columns += [f"{name}: AP", *(f"{listed} AP" for listed in _LISTED_CLASSES)]
        columns += [] if truth is None else ["relevant seen", "people seen", "false vehicles an image"]
    rows = []
    for candidate in interpolation.candidates:
        cells = [cell for place in range(len(interpolation.judge.sets)) for cell in _cells(candidate, place)]
        name = f"**{candidate.name}, chosen**" if candidate is interpolation.chosen else candidate.name
        rows.append([name, *cells, f"{candidate.score:.4f}"])
    return Table(["", *columns, "score"], rows)


def _cells(candidate: Candidate, place: int) -> list[str]:
    metrics, seen = candidate.metrics[place], candidate.visibility[place]
    by_class = {found.name: found.ap for found in metrics.classes}
    cells = [f"{metrics.ap:.4f}", *(_figure(by_class.get(name)) for name in _LISTED_CLASSES)]
    if seen is not None:
        recalls = [seen.relevant_recall().part, seen.relevant_recall("person").part]
        cells += [*map(_figure, recalls), f"{seen.false_per_frame('vehicle'):.3f}"]
    return cells


def _figure(value: float | None) -> str:
    return "none there" if value is None else f"{value:.3f}"


def write_report(folder: Path, interpolation: Interpolation) -> None:
    """Write ``interpolation.json``, ``interpolation.md`` and ``interpolation.png``."""
    report = ReportFolder(folder)
    report.json("interpolation.json", interpolation.to_dict())
    first, second = (relative_to_cwd(path) for path in interpolation.origins)
    report.text(
        "interpolation.md", markdown(Heading(f"Between {first} and {second}", 1), candidates_table(interpolation))
    )
    panels = _panels(interpolation)
    report.picture("interpolation.png", lambda figure: _draw(figure, interpolation, panels), columns=len(panels))


def _panels(interpolation: Interpolation) -> list[tuple[str, Value]]:
    """Names and values of the gains on the other sets."""
    judge, panels = interpolation.judge, []
    for place, (one, truth) in enumerate(zip(judge.sets, judge.rendered, strict=True)):
        name = _set_name(one, truth)
        if place:
            panels.append((f"AP on {name}", _ap(place)))
        if truth is not None:
            panels.append((f"relevant road users seen on {name}", _relevant(place)))
    return panels or [("mean AP by the sets' weights", lambda one: one.score)]


def _draw(figure: Figure, interpolation: Interpolation, panels: Sequence[tuple[str, Value]]) -> None:
    """Plot gains on the other sets over AP on the first one."""
    judge = interpolation.judge
    first = _set_name(judge.sets[0], judge.rendered[0])
    for axes, (name, value) in zip(figure.subplots(1, len(panels), squeeze=False).flat, panels, strict=True):
        _draw_panel(axes, interpolation, value)
        axes.set(xlabel=f"AP on {first}", ylabel=name)
    figure.suptitle("Averages of two networks, by the share of the second")


def _set_name(one: ValidationSet, truth: RenderedAnnotations | None) -> str:
    path = one.source.annotations
    return path.stem if truth is None else f"rendered {path.parent.name}"


def _ap(place: int) -> Value:
    return lambda one: one.metrics[place].ap


def _relevant(place: int) -> Value:
    def value(one: Candidate) -> float | None:
        seen = one.visibility[place]
        return None if seen is None else seen.relevant_recall().part

    return value


def _draw_panel(axes: Axes, interpolation: Interpolation, value: Value) -> None:
    points = [(one, one.metrics[0].ap, value(one)) for one in interpolation.candidates]
    drawn = [(one, x, y) for one, x, y in points if y is not None]
    line = [(x, y) for one, x, y in drawn if one.share is not None]
    axes.plot([x for x, _ in line], [y for _, y in line], "o-", color=BLUE, label="averages")
    for one, x, y in drawn:
        if one.share is None:
            axes.plot(x, y, "s", color=ORANGE, label="/".join(Path(one.name).parts[-2:]))
        else:
            axes.annotate(f"{one.share:g}", (x, y), xytext=(5, 5), textcoords="offset points", fontsize=8)
        if one is interpolation.chosen:
            axes.plot(x, y, "o", markersize=14, fillstyle="none", color=GREEN, label="chosen")
    least = interpolation.candidates[0].metrics[0].ap - interpolation.max_loss
    axes.axvline(least, color="k", linestyle=":", linewidth=1, label="lowest AP allowed")
    axes.legend(fontsize=7)


def write_card(weights_path: Path, interpolation: Interpolation) -> None:
    """Write ``MODEL_CARD.md`` beside existing weights, followed by the cards of both origins."""
    chosen, judge = interpolation.chosen, interpolation.judge
    text = markdown(
        *head(weights_path, interpolation.backbone, len(interpolation.labels), "ssd-triton interpolate"),
        _origin(interpolation),
        *(block for one, found in zip(judge.sets, chosen.metrics, strict=True) for block in accuracy(one, found)),
        f"**Chosen among** these; AP may fall by {interpolation.max_loss:g} on photographs.",
        candidates_table(interpolation),
        "**Bias and limits.** Those of both networks, see below.",
        Bullets(COMMON_LIMITS),
        *(_card_of(path, which) for path, which in zip(interpolation.origins, ("first", "second"), strict=True)),
    )
    ReportFolder(weights_path.parent).text(CARD, text)


def _origin(interpolation: Interpolation) -> str:
    first, second = (f"`{path.name}` (SHA-256 `{sha256_of(path)[:16]}`)" for path in interpolation.origins)
    share = interpolation.chosen.share or 0.0
    shifts = [f"{logit:+g} to `{name}`" for name, logit in interpolation.shifts.items() if share]
    added = f" Added to logits: {', '.join(shifts)}." if shifts else ""
    return (
        f"**Weights.** {1 - share:g} times those of {first} and {share:g} times those of {second}, averaged in FP32, "
        'statistics of batch norms included (Wortsman et al., "Robust fine-tuning of zero-shot models", 2022).' + added
    )


def _card_of(path: Path, which: str) -> str:
    """The card beside an origin, with its headings one level lower."""
    card = path.with_name(CARD)
    if not card.is_file():
        return f"## The {which} network\n\nNo model card lies beside `{path.name}`."
    text = card.read_text(encoding="utf-8").strip()
    return f"## The {which} network\n\n{re.sub('^#', '##', text, flags=re.MULTILINE)}"
