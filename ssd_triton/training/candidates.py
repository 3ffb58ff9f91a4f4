"""Candidates for publication: weights and their figures on photographs and on rendered traffic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ssd_triton.detector.network.ssd import SSD300
from ssd_triton.evaluation.errors import EvaluationError
from ssd_triton.evaluation.metrics import Metrics
from ssd_triton.simulation.judging.visibility import Criteria, RenderedAnnotations, Visibility, judge, read_rendered
from ssd_triton.training.validation import ValidationSet, Validator, figures


@dataclass(frozen=True)
class Candidate:
    """Figures of one set of weights.

    Attributes:
        name: Name for tables.
        share: Share of the second network in the average, in [0, 1]; None for weights that are no average.
        metrics: COCO figures on each validation set.
        visibility: Detected road users on each validation set; None on photographs.
        score: Weighted mean AP of the validation sets.
    """

    name: str
    share: float | None
    metrics: tuple[Metrics, ...]
    visibility: tuple[Visibility | None, ...]
    score: float

    def to_dict(self) -> dict[str, Any]:
        """Figures by name."""
        return {
            "name": self.name,
            "share": self.share,
            "score": self.score,
            "ap": [metrics.ap for metrics in self.metrics],
            "classes": [
                {found.name: found.ap for found in metrics.classes if found.ap is not None} for metrics in self.metrics
            ],
            "relevant_recall": [None if seen is None else seen.relevant_recall().part for seen in self.visibility],
            "false_vehicles_per_image": [
                None if seen is None else seen.false_per_frame("vehicle") for seen in self.visibility
            ],
        }


class Judge:
    """Evaluates candidates, all on the same sets."""

    def __init__(self, validator: Validator, labels: Sequence[str], criteria: Criteria) -> None:
        """Find out which sets are rendered.

        Args:
            validator: Evaluates networks on the sets.
            labels: Class names by id, the background first.
            criteria: Criteria for rendered sets.
        """
        self.sets: tuple[ValidationSet, ...] = validator.sets
        self.rendered = tuple(_rendered_truth(one) for one in self.sets)
        self.criteria = criteria
        self._validator, self._labels = validator, labels

    def evaluate(self, name: str, share: float | None, network: SSD300) -> Candidate:
        """Evaluate a network, which must be on the sets' device."""
        found = self._validator.detections(network)
        metrics = tuple(figures(one, detections) for one, detections in zip(self.sets, found, strict=True))
        visibility = tuple(
            None if truth is None else judge(truth, detections, self._labels, self.criteria)
            for truth, detections in zip(self.rendered, found, strict=True)
        )
        return Candidate(name, share, metrics, visibility, self._validator.score(metrics) or 0.0)


def choose(candidates: Sequence[Candidate], max_loss: float) -> Candidate:
    """Choose the best candidate by score that is about as good on photographs as the first one.

    Args:
        candidates: One or more.
        max_loss: AP that the choice may lose on each set of photographs, compared with the first candidate.
    """
    first = candidates[0]
    photographs = [place for place, seen in enumerate(first.visibility) if seen is None]
    kept = [
        one
        for one in candidates
        if all(one.metrics[place].ap >= first.metrics[place].ap - max_loss for place in photographs)
    ]
    return max(kept, key=lambda one: one.score)


def _rendered_truth(one: ValidationSet) -> RenderedAnnotations | None:
    """The annotations of a rendered set; None for photographs, whose annotations lack ranges."""
    try:
        return read_rendered(one.source.annotations)
    except EvaluationError:
        return None
