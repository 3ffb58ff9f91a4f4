"""What an interpolation leaves: a table, a picture, and the model card of the chosen weights."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from ssd_triton.common.files import atomic_output, relative_to_cwd, sha256_of
from ssd_triton.simulation.judging.visibility import RenderedAnnotations
from ssd_triton.training.candidates import Candidate, Judge
from ssd_triton.training.model_card import CARD, COMMON_LIMITS, accuracy, head
from ssd_triton.training.validation import ValidationSet

_LISTED_CLASSES = ("person", "car")
Value = Callable[[Candidate], "float | None"]


@dataclass(frozen=True)
class Outcome:
    """What was evaluated, and what came of it.

    Attributes:
        origins: Files of the first and the second network's weights.
        backbone: Of both.
        labels: Class names by id, the background first.
        judge: Holds the sets.
        max_loss: AP that the choice may lose against the first weights on photographs.
        candidates: Averages by share, and then other weights.
        chosen: One of them.
        shifts: Added to logits in every average, by class name.
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
        """Figures by name, and what they belong to."""
        return {
            "origins": [{"path": relative_to_cwd(path), "sha256": sha256_of(path)} for path in self.origins],
            "sets": [one.source.name for one in self.judge.sets],
            "criteria": vars(self.judge.criteria),
            "max_loss": self.max_loss,
            "shifts": dict(self.shifts),
            "chosen": self.chosen.name,
            "candidates": [one.to_dict() for one in self.candidates],
        }


def table(outcome: Outcome) -> str:
    """All figures as Markdown, a row for each of the candidates."""
    columns = []
    for one, truth in zip(outcome.judge.sets, outcome.judge.rendered, strict=True):
        name = _set_name(one, truth)
        columns += [f"{name}: AP", *(f"{listed} AP" for listed in _LISTED_CLASSES)]
        columns += [] if truth is None else ["relevant seen", "people seen", "false vehicles an image"]
    lines = [f"| | {' | '.join(columns)} | score |", "|---|" + "---|" * (len(columns) + 1)]
    for candidate in outcome.candidates:
        cells = [cell for place in range(len(outcome.judge.sets)) for cell in _cells(candidate, place)]
        name = f"**{candidate.name}, chosen**" if candidate is outcome.chosen else candidate.name
        lines.append(f"| {name} | {' | '.join(cells)} | {candidate.score:.4f} |")
    return "\n".join(lines)


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


def plot(path: Path, outcome: Outcome) -> None:
    """What is gained on the other sets, over AP on the first one."""
    judge, panels = outcome.judge, []
    names = [_set_name(one, truth) for one, truth in zip(judge.sets, judge.rendered, strict=True)]
    for place, (name, truth) in enumerate(zip(names, judge.rendered, strict=True)):
        if place:
            panels.append((f"AP on {name}", _ap(place)))
        if truth is not None:
            panels.append((f"relevant road users seen on {name}", _relevant(place)))
    panels = panels or [("mean AP by the sets' weights", lambda one: one.score)]
    figure, grid = plt.subplots(1, len(panels), figsize=(5.8 * len(panels), 4.8), layout="constrained", squeeze=False)
    for axes, (name, value) in zip(grid.flat, panels, strict=True):
        _draw(axes, outcome, value)
        axes.set(xlabel=f"AP on {names[0]}", ylabel=name)
    figure.suptitle("Averages of two networks, by the share of the second")
    with atomic_output(path) as temporary:
        figure.savefig(temporary, dpi=110)
    plt.close(figure)


def _set_name(one: ValidationSet, truth: RenderedAnnotations | None) -> str:
    return one.source.annotations.stem if truth is None else "rendered"


def _ap(place: int) -> Value:
    return lambda one: one.metrics[place].ap


def _relevant(place: int) -> Value:
    def value(one: Candidate) -> float | None:
        seen = one.visibility[place]
        return None if seen is None else seen.relevant_recall().part

    return value


def _draw(axes: Axes, outcome: Outcome, value: Value) -> None:
    points = [(one, one.metrics[0].ap, value(one)) for one in outcome.candidates]
    drawn = [(one, x, y) for one, x, y in points if y is not None]
    line = [(x, y) for one, x, y in drawn if one.share is not None]
    axes.plot([x for x, _ in line], [y for _, y in line], "o-", color="#2563c9", label="averages")
    for one, x, y in drawn:
        if one.share is None:
            axes.plot(x, y, "s", color="#d97706", label="/".join(Path(one.name).parts[-2:]))
        else:
            axes.annotate(f"{one.share:g}", (x, y), xytext=(5, 5), textcoords="offset points", fontsize=8)
        if one is outcome.chosen:
            axes.plot(x, y, "o", markersize=14, fillstyle="none", color="#15803d", label="chosen")
    least = outcome.candidates[0].metrics[0].ap - outcome.max_loss
    axes.axvline(least, color="k", linestyle=":", linewidth=1, label="least that is to be kept")
    axes.grid(visible=True, alpha=0.25)
    axes.legend(fontsize=7)


def write_card(weights_path: Path, outcome: Outcome) -> None:
    """Write ``MODEL_CARD.md`` beside weights that exist, with the cards of both origins below."""
    chosen, judge = outcome.chosen, outcome.judge
    sections = [
        head(weights_path, outcome.backbone, len(outcome.labels), "tools/interpolate_weights.py"),
        _origin(outcome),
        *(accuracy(one, found) for one, found in zip(judge.sets, chosen.metrics, strict=True)),
        f"**Chosen among** these; AP may fall by {outcome.max_loss:g} on photographs.\n\n{table(outcome)}",
        "\n".join(["**Bias and limits.** Those of both networks, see below.", *COMMON_LIMITS]),
        *(_card_of(path, which) for path, which in zip(outcome.origins, ("first", "second"), strict=True)),
    ]
    with atomic_output(weights_path.with_name(CARD)) as temporary:
        temporary.write_text("\n\n".join(sections) + "\n", encoding="utf-8")


def _origin(outcome: Outcome) -> str:
    first, second = (f"`{path.name}` (SHA-256 `{sha256_of(path)[:16]}`)" for path in outcome.origins)
    share = outcome.chosen.share or 0.0
    shifts = [f"{logit:+g} to `{name}`" for name, logit in outcome.shifts.items() if share]
    added = f" Added to logits: {', '.join(shifts)}." if shifts else ""
    return (
        f"**Weights.** {1 - share:g} times those of {first} and {share:g} times those of {second}, averaged in FP32, "
        'statistics of batch norms included (Wortsman et al., "Robust fine-tuning of zero-shot models", 2022).' + added
    )


def _card_of(path: Path, which: str) -> str:
    """The card beside an origin, its headings one level down."""
    card = path.with_name(CARD)
    if not card.is_file():
        return f"## The {which} network\n\nNo model card lies beside `{path.name}`."
    text = card.read_text(encoding="utf-8").strip()
    return f"## The {which} network\n\n{re.sub('^#', '##', text, flags=re.MULTILINE)}"
