"""Times of the demo's stages."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median

import numpy as np

from ssd_triton.driving.drawing.status_bar import StageRate

STAGES = ("read", "detect", "watch", "decide", "draw", "write")
"""Stages of each frame, in order; ``detect`` lasts from sending a frame to its answer, ``watch`` is the calibration."""

_LANES = (("read", "watch", "decide", "draw"), ("detect",), ("write",))
"""Stages that follow each other; lanes work at the same time."""

_RECENT = 30
"""Number of recent frames in the times on the picture: about a second."""

LONGEST_RECORD = 100_000
"""Number of recent frames whose figures are kept, so that a camera can run for days: an hour at 28 fps."""


@dataclass(frozen=True)
class Percentiles:
    """The median and the 95th percentile, in milliseconds."""

    p50_ms: float
    p95_ms: float

    @classmethod
    def of(cls, values_ms: Sequence[float]) -> Percentiles:
        """The percentiles of at least one value."""
        return cls(float(np.median(values_ms)), float(np.percentile(values_ms, 95)))


class StageTimes:
    """Collects the times of every stage.

    Args:
        in_flight: Number of frames in flight in ``detect``; its throughput is this many times higher.
    """

    def __init__(self, in_flight: int) -> None:
        self._in_flight = in_flight
        self._stage_ms: dict[str, deque[float]] = {stage: deque(maxlen=LONGEST_RECORD) for stage in STAGES}
        self._recent_ms: dict[str, deque[float]] = {stage: deque(maxlen=_RECENT) for stage in STAGES}
        self._total_ms = dict.fromkeys(STAGES, 0.0)
        self._adding = threading.Lock()
        self._finished_s: deque[float] = deque(maxlen=_RECENT + 1)

    def add(self, stage: str, start_s: float) -> None:
        """Record a stage that began at ``start_s`` of :func:`time.perf_counter` and has just ended."""
        took_ms = (time.perf_counter() - start_s) * 1e3
        self._stage_ms[stage].append(took_ms)
        self._recent_ms[stage].append(took_ms)
        with self._adding:  # answers arrive in several threads
            self._total_ms[stage] += took_ms

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Measure a block."""
        start_s = time.perf_counter()
        yield
        self.add(stage, start_s)

    def finish_frame(self) -> None:
        """Record that a frame has left the pipeline."""
        self._finished_s.append(time.perf_counter())

    def recent(self) -> list[StageRate]:
        """Median time and rate of each stage over recent frames, and the rate of the pipeline, whose stages overlap."""
        rates = []
        for stage, recent_ms in self._recent_ms.items():
            at_once = self._in_flight if stage == "detect" else 1
            # Copied, since other threads add times.
            ms = median(recent_ms.copy()) if recent_ms else None
            rates.append(StageRate(stage, ms, None if ms is None else at_once * 1000 / ms))
        return [*rates, StageRate("pipeline", None, self._recent_fps())]

    def summary(self) -> Mapping[str, Percentiles]:
        """Percentiles of the stages over the whole run."""
        return {stage: Percentiles.of([*ms]) for stage, ms in self._stage_ms.items() if ms}

    def busiest(self, wall_s: float) -> tuple[str, float]:
        """The stages that hold up the others, the longest first, and their share of the whole time.

        Those of a lane follow each other; of ``detect``, as many are under way as may be in flight.
        """
        total_ms = {stage: ms / (self._in_flight if stage == "detect" else 1) for stage, ms in self._total_ms.items()}
        lane = max(_LANES, key=lambda lane: sum(total_ms[stage] for stage in lane))
        stages = sorted((stage for stage in lane if total_ms[stage]), key=lambda stage: -total_ms[stage])
        return ", ".join(stages), sum(total_ms[stage] for stage in stages) / (wall_s * 1e3)

    def _recent_fps(self) -> float | None:
        """Recent frames per second of the pipeline; None before the second frame."""
        if len(self._finished_s) < 2:
            return None
        return (len(self._finished_s) - 1) / (self._finished_s[-1] - self._finished_s[0])
