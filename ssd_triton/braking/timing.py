"""How long the stages of the demo take."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import NamedTuple

import numpy as np

STAGES = ("read", "detect", "decide", "draw", "write")
"""What each frame goes through, in this order; ``detect`` lasts from sending a frame until its answer is there."""

_RECENT = 30
"""Frames over which the shown times are taken: about a second."""


@dataclass(frozen=True)
class StageSummary:
    """Milliseconds that a stage took a frame: the median and the 95th percentile."""

    median_ms: float
    p95_ms: float


class StageRate(NamedTuple):
    """Milliseconds a frame, and the frames a second that the stage can sustain; None where not known yet."""

    name: str
    ms: float | None
    fps: float | None


class StageTimes:
    """Collects the times of every stage.

    Args:
        in_flight: Frames that are under way at once in ``detect``, which so many times more come through.
    """

    def __init__(self, in_flight: int) -> None:
        self._in_flight = in_flight
        self._stage_ms: dict[str, list[float]] = {stage: [] for stage in STAGES}
        self._finished_s: deque[float] = deque(maxlen=_RECENT + 1)

    def add(self, stage: str, start_s: float) -> None:
        """Note that a stage which began at ``start_s`` of :func:`time.perf_counter` has just ended."""
        self._stage_ms[stage].append((time.perf_counter() - start_s) * 1e3)

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Measure a block."""
        start_s = time.perf_counter()
        yield
        self.add(stage, start_s)

    def finish_frame(self) -> None:
        """Note that a frame has left the pipeline."""
        self._finished_s.append(time.perf_counter())

    def recent(self) -> list[StageRate]:
        """Each stage by the median of its last frames, and the whole pipeline, in which stages overlap."""
        rates = []
        for stage, all_ms in self._stage_ms.items():
            at_once = self._in_flight if stage == "detect" else 1
            name = f"{stage} x{at_once}" if at_once > 1 else stage
            ms = median(all_ms[-_RECENT:]) if all_ms else None
            rates.append(StageRate(name, ms, None if ms is None else at_once * 1000 / ms))
        return [*rates, StageRate("pipeline", None, self._recent_fps())]

    def summary(self) -> Mapping[str, StageSummary]:
        """Figures of the stages over the whole run."""
        return {
            stage: StageSummary(float(np.median(ms)), float(np.percentile(ms, 95)))
            for stage, ms in self._stage_ms.items()
            if ms
        }

    def _recent_fps(self) -> float | None:
        """Frames a second that left the pipeline lately; None before the second one."""
        if len(self._finished_s) < 2:
            return None
        return (len(self._finished_s) - 1) / (self._finished_s[-1] - self._finished_s[0])
