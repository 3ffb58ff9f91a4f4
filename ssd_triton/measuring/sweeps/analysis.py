"""Draws conclusions from a sweep: best loads, cost of the server, and the model that limits an ensemble."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ssd_triton.common.model_names import DETECTOR, POSTPROCESS, PREPROCESS
from ssd_triton.detector.variants import BASELINE
from ssd_triton.measuring.sweeps.point_summary import PointSummary
from ssd_triton.measuring.sweeps.server_statistics import Stage
from ssd_triton.measuring.sweeps.sweep_file import DEFAULT_SETTING

ENSEMBLE = "ssd"
_ENSEMBLES = ("ssd", "ssd_frames")
_MEMBERS = (PREPROCESS, DETECTOR, POSTPROCESS)


@dataclass(frozen=True)
class Member:
    """A model that a request passes through.

    Attributes:
        stage: Its times.
        busy: Mean number of busy instances.
    """

    stage: Stage
    busy: float

    @property
    def share(self) -> float | None:
        """Fraction of its instances that are busy, in [0, 1]; None if their number is unknown."""
        return self.busy / self.stage.instances if self.stage.instances else None

    @property
    def instances(self) -> str:
        """Text with the mean number of busy instances, and of all if known."""
        return f"{self.busy:.2f} of {self.stage.instances}" if self.stage.instances else f"{self.busy:.2f}"


def as_configured(summaries: Sequence[PointSummary]) -> list[PointSummary]:
    """Return the summaries of the repository as it is, without other server settings."""
    return [summary for summary in summaries if summary.point.setting == DEFAULT_SETTING]


def load_names(summaries: Sequence[PointSummary]) -> list[str]:
    """Return the name of each summary's load, the same under every setting; with the variant, if there are several."""
    several = len({one.point.variant for one in summaries}) > 1
    return [f"{one.point.variant}, {one.point.load}" if several else one.point.load for one in summaries]


def best_by_batch(summaries: Sequence[PointSummary], model: str) -> dict[str, dict[int, PointSummary]]:
    """Return the load with the most images a second, by variant and batch size."""
    best: dict[str, dict[int, PointSummary]] = {}
    for summary in as_configured(summaries):
        point = summary.point
        if point.model == model and point.rate_share is None:
            of_variant = best.setdefault(point.variant, {})
            if point.batch not in of_variant or of_variant[point.batch].images_per_s < summary.images_per_s:
                of_variant[point.batch] = summary
    return best


def saturated(summaries: Sequence[PointSummary]) -> list[PointSummary]:
    """Return the best load of the ensemble with one image a request, for each variant."""
    return [of_variant[1] for of_variant in best_by_batch(summaries, ENSEMBLE).values() if 1 in of_variant]


def baseline_of(best: Mapping[str, Mapping[int, PointSummary]]) -> str | None:
    """Return the variant that speed-ups are relative to: the first baseline that was measured; None without one."""
    return next((name for name in (BASELINE["gpu"], BASELINE["cpu"]) if name in best), None)


def rates_of(summaries: Sequence[PointSummary], model: str) -> dict[tuple[str, int], float]:
    """Return the images a second of a model at its best load, by variant and batch size."""
    best = best_by_batch(summaries, model)
    return {(name, batch): one.images_per_s for name, of in best.items() for batch, one in of.items()}


def members(summary: PointSummary) -> list[Member]:
    """Return the models of an ensemble, or the model itself, in the order of processing."""
    found = [stage for stage in summary.stages if stage.model not in _ENSEMBLES]
    found.sort(key=lambda stage: _MEMBERS.index(stage.model) if stage.model in _MEMBERS else len(_MEMBERS))
    requests_per_s = summary.images_per_s / summary.point.batch
    return [Member(stage, stage.work_ms * requests_per_s / 1e3) for stage in found]


def network_ms(summary: PointSummary) -> float:
    """Return the latency outside the server: client, network, serialization."""
    served = [stage for stage in summary.stages if stage.model == summary.point.model]
    return max(0.0, summary.figures["mean_ms"].value - served[0].total_ms) if served else 0.0


def bottlenecks(summaries: Sequence[PointSummary]) -> list[str]:
    """Return a sentence for every variant that names the member of the ensemble that limits it.

    That is the member with the largest fraction of busy instances. If the number of instances is unknown, it is the
    member with the most working time.
    """
    sentences = []
    for summary in saturated(summaries):
        found = members(summary)
        if not found:
            continue
        total = sum(member.busy for member in found)
        if all(member.share is not None for member in found):
            worst = max(found, key=lambda member: member.share or 0.0)
            claim = "the bottleneck of `ssd` is"
        else:
            worst = max(found, key=lambda member: member.busy)
            claim = "the model of `ssd` that works most is"
        sentences.append(
            f"`{summary.point.variant}`: {claim} `{worst.stage.model}`, with {worst.instances} instances at work on "
            f"average and {worst.busy / total:.0%} of the models' working time."
        )
    return sentences
