"""Compares two sweeps, and reports differences beyond their noise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ssd_triton.common.report import Table
from ssd_triton.measuring.sweeps.errors import SweepError
from ssd_triton.measuring.sweeps.point_summary import PointSummary
from ssd_triton.measuring.sweeps.sweep_file import Point

COMPARED = ("images_per_s", "p50_ms", "p95_ms")
"""Compared metrics: higher is better for the first one, lower for the others. The p99 of a short window depends on a
single request, and is left out."""
Verdict = Literal["same", "better", "worse"]


@dataclass(frozen=True)
class Change:
    """One metric of one point.

    Attributes:
        point: What was measured.
        metric: One of :data:`COMPARED`.
        before: Median of the first set.
        after: Median of the second set.
        noise: Relative difference that chance can explain, from the bands of both sets.
    """

    point: Point
    metric: str
    before: float
    after: float
    noise: float

    @property
    def ratio(self) -> float:
        """``after`` divided by ``before``."""
        return self.after / self.before

    @property
    def verdict(self) -> Verdict:
        """``better`` or ``worse`` beyond the noise, else ``same``."""
        if abs(math.log(self.ratio)) <= self.noise:
            return "same"
        return "better" if (self.ratio > 1) == (self.metric == "images_per_s") else "worse"


def compare(before: Sequence[PointSummary], after: Sequence[PointSummary]) -> list[Change]:
    """Compare the measurements that two sets share.

    Raises:
        SweepError: They have nothing in common, or a set has a single round and therefore no bands.
    """
    earlier = {summary.point: summary for summary in before if summary.figures}
    changes = []
    for summary in after:
        then = earlier.get(summary.point)
        if then is None or not summary.figures:
            continue
        for metric in COMPARED:
            one, other = then.figures[metric], summary.figures[metric]
            if one.band is None or other.band is None:
                raise SweepError(
                    "got results of a single round, expected several: noise is the difference between rounds"
                )
            changes.append(Change(summary.point, metric, one.value, other.value, math.hypot(one.band, other.band)))
    if not changes:
        raise SweepError("the two sets have no measurement in common")
    return changes


def verdict(changes: Sequence[Change]) -> str:
    """Count all changes in a sentence."""
    counts = {name: sum(change.verdict == name for change in changes) for name in ("same", "better", "worse")}
    return (
        f"{len(changes)} figures compared: {counts['same']} agree within noise, {counts['better']} are better, "
        f"{counts['worse']} are worse."
    )


def change_table(changes: Sequence[Change]) -> Table:
    """Return a table of all figures, with the largest changes relative to their noise first."""
    ordered = sorted(changes, key=lambda change: -abs(math.log(change.ratio)) / change.noise)
    rows = [
        [
            str(change.point),
            change.metric,
            f"{change.before:.2f}",
            f"{change.after:.2f}",
            f"{change.ratio - 1:+.0%}",
            f"± {change.noise:.0%}",
            change.verdict,
        ]
        for change in ordered
    ]
    return Table(["measurement", "figure", "before", "after", "change", "noise", "verdict"], rows, "Changes")
