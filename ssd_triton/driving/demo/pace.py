"""Rate and latency of a run's decisions, and whether they are too slow."""

from __future__ import annotations

from collections import deque

import numpy as np

from ssd_triton.driving.demo.timing import LONGEST_RECORD, Percentiles

_WINDOW_S = 2.0
"""Time over which decisions are counted: half of the shortest initial time to collision in the tests of UN R152."""
_RECENT_LATENCIES = 20
_PERCENTILE = 90
"""Decisions assume this percentile of the most recent latencies: with each frame's own, the thresholds would jump."""


class Pace:
    """Collects the times of decisions.

    Args:
        min_rate_hz: Rate below which the run is too slow.

    Attributes:
        lowest_hz: Least rate of decisions with data so far; None in the first two seconds.
    """

    def __init__(self, min_rate_hz: float) -> None:
        self._min_rate_hz = min_rate_hz
        self._times_s: deque[float] = deque()
        self._start_s: float | None = None
        self._rate_hz: float | None = None
        self._latencies_ms: deque[float] = deque(maxlen=LONGEST_RECORD)
        self._recent_s: deque[float] = deque(maxlen=_RECENT_LATENCIES)
        self.lowest_hz: float | None = None

    def add(self, now_s: float, *, has_data: bool) -> None:
        """Record a decision; times must rise."""
        self._start_s = now_s if self._start_s is None else self._start_s
        if has_data:
            self._times_s.append(now_s)
        while self._times_s and self._times_s[0] <= now_s - _WINDOW_S:
            self._times_s.popleft()
        if now_s - self._start_s >= _WINDOW_S:
            self._rate_hz = len(self._times_s) / _WINDOW_S
            self.lowest_hz = min(self._rate_hz, self._rate_hz if self.lowest_hz is None else self.lowest_hz)

    def add_latency(self, latency_s: float) -> float:
        """Record the time from camera to decision; returns the latency that decisions should assume."""
        self._latencies_ms.append(latency_s * 1e3)
        self._recent_s.append(latency_s)
        return self._recent_latency_s

    @property
    def latency(self) -> Percentiles | None:
        """The latency over the whole run; None where it was not measured."""
        return Percentiles.of([*self._latencies_ms]) if self._latencies_ms else None

    @property
    def _recent_latency_s(self) -> float:
        return float(np.percentile(self._recent_s, _PERCENTILE))

    @property
    def doubt(self) -> str:
        """Why the run is too slow, in words; empty where it is not."""
        is_slow = self._rate_hz is not None and self._rate_hz < self._min_rate_hz
        return f"it reacts late: fewer than {self._min_rate_hz:g} decisions a second" if is_slow else ""

    @property
    def figures(self) -> str:
        """The present rate, and the latency where it is measured, in words."""
        rate = "" if self._rate_hz is None else f"{self._rate_hz:.1f} decisions a second"
        return f"{rate}, latency {self._recent_latency_s * 1e3:.0f} ms" if self._recent_s else rate
