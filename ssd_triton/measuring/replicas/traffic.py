"""Sends requests without a pause, and records the outcome of each."""

from __future__ import annotations

import threading
import time
from collections import Counter
from concurrent.futures import Future
from dataclasses import dataclass, field
from types import TracebackType

from ssd_triton.client import DetectorClient
from ssd_triton.common.detections import Detections


@dataclass
class Outcomes:
    """Outcomes of the requests so far.

    Attributes:
        answered_at_s: Time of each answer, seconds since the traffic began.
        latencies_s: Time from sending to each answer.
        failed: Number of failures, by class and text of the error.
    """

    answered_at_s: list[float] = field(default_factory=list)
    latencies_s: list[float] = field(default_factory=list)
    failed: Counter[str] = field(default_factory=Counter)


class ConstantTraffic:
    """Sends one image repeatedly in a thread, with as many requests in flight as the client allows.

    Use it as a context manager: after the block every request has been answered or has failed. The traffic ends by
    itself after ``limit_s``.
    """

    def __init__(self, client: DetectorClient, image: bytes, *, limit_s: float) -> None:
        """Prepare; nothing is sent yet.

        Args:
            client: A client of a ready server.
            image: An encoded image.
            limit_s: Longest duration of the traffic, seconds.
        """
        self.outcomes = Outcomes()
        self._client = client
        self._image = image
        self._limit_s = limit_s
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._send, name="traffic")

    def __enter__(self) -> ConstantTraffic:
        self._start_s = time.monotonic()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.finish()

    def finish(self) -> None:
        """Send no more requests, and wait until every one has been answered or has failed."""
        self._stop.set()
        self._thread.join()

    def elapsed_s(self) -> float:
        """Seconds since the traffic began."""
        return time.monotonic() - self._start_s

    def _send(self) -> None:
        in_flight: list[Future[Detections]] = []
        while not self._stop.is_set() and self.elapsed_s() < self._limit_s:
            future = self._client.submit(self._image)
            sent_s = self.elapsed_s()  # after submit, which waits until fewer requests are in flight
            future.add_done_callback(lambda done, sent_s=sent_s: self._record(done, sent_s))  # type: ignore[misc]
            in_flight = [other for other in in_flight if not other.done()] + [future]
        for future in in_flight:
            future.exception()

    def _record(self, done: Future[Detections], sent_s: float) -> None:
        error = done.exception()
        with self._lock:
            if error is None:
                self.outcomes.answered_at_s.append(self.elapsed_s())
                self.outcomes.latencies_s.append(self.elapsed_s() - sent_s)
            else:
                self.outcomes.failed[f"{type(error).__name__}: {error}"] += 1
