"""Frames with their detections, in order: every frame of a file, or the newest ones in real time."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol

from ssd_triton.client.errors import ClientError, DeadlineExceededError
from ssd_triton.common.arrays import UInt8Array
from ssd_triton.common.detections import Detections
from ssd_triton.common.in_flight import submit_ahead
from ssd_triton.driving.demo.timing import StageTimes
from ssd_triton.media.video import Frame, VideoSource

_LONGEST_PAUSE_S = 2.0
"""Longest pause between two frames of a file in real time: longer gaps in its timestamps (clock jumps) are skipped."""


class FrameDetector(Protocol):
    """A detector, such as :class:`ssd_triton.client.DetectorClient`."""

    def submit_frame(self, frame_rgb: UInt8Array) -> Future[Detections]:
        """Start detection in a frame, UINT8 [H, W, 3] RGB."""


@dataclass(frozen=True)
class CapturedFrame:
    """A frame with its time of capture, and the losses before it.

    Attributes:
        frame: The source's frame.
        captured_s: Time of capture by :func:`time.monotonic`.
        undecodable_before: Number of the source's frames before this one that could not be decoded.
    """

    frame: Frame
    captured_s: float
    undecodable_before: int


@dataclass(frozen=True)
class FrameAnswer:
    """The answer for a frame.

    Attributes:
        captured: The frame.
        detections: None without an answer in time.
        problem: Reason for the missing answer.
    """

    captured: CapturedFrame
    detections: Detections | None
    problem: ClientError | None = None


class Feed(ABC):
    """Frames with their detections; can be iterated once.

    Args:
        source: An open source.
        client: The detector.
        in_flight: Greatest number of frames in flight, at least 1.

    Attributes:
        times: Those of ``read`` and ``detect``, to which others are added.
        dropped: Number of frames so far that were dropped before they were sent.
    """

    is_real_time = False

    def __init__(self, source: VideoSource, client: FrameDetector, in_flight: int) -> None:
        self._source = source
        self._client = client
        self._in_flight = in_flight
        self.times = StageTimes(in_flight)
        self.dropped = 0

    @abstractmethod
    def answers(self) -> Generator[FrameAnswer, None, None]:
        """Yield the answers in the order of the frames.

        Raises:
            VideoError: The source stopped working.
        """

    def _captured(self) -> Iterator[CapturedFrame]:
        """Yield the source's frames, and record how long each took to read."""
        start_s = time.perf_counter()
        for frame in self._source:
            self.times.add("read", start_s)
            yield CapturedFrame(frame, time.monotonic(), self._source.undecodable_frames)
            start_s = time.perf_counter()

    def _submit(self, captured: CapturedFrame) -> Future[Detections]:
        start_s = time.perf_counter()
        future = self._client.submit_frame(captured.frame.image_rgb)
        future.add_done_callback(lambda _: self.times.add("detect", start_s))
        return future


class FileFeed(Feed):
    """Every frame of the source; the next ones are in flight while a frame is awaited."""

    def answers(self) -> Generator[FrameAnswer, None, None]:
        """See :class:`Feed`."""
        for captured, future in submit_ahead(self._captured(), self._submit, self._in_flight):
            yield _answer(captured, future)


class RealTimeFeed(Feed):
    """The newest frame whenever the detector is free, at the pace of the source's timestamps.

    A frame is dropped when a newer one arrives before the detector is free, or when it is too old by then. A frame
    whose answer is late is yielded without detections. While the detector does not answer at all, frames are yielded
    without being sent, so that the silence is noticed.

    Args:
        source: As for :class:`Feed`; a file is paced, a live source is not.
        client: As for :class:`Feed`.
        in_flight: As for :class:`Feed`.
        max_age_s: Longest time from capture to answer.
    """

    is_real_time = True

    def __init__(self, source: VideoSource, client: FrameDetector, in_flight: int, max_age_s: float) -> None:
        super().__init__(source, client, in_flight)
        self._max_age_s = max_age_s
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        self._newest: CapturedFrame | None = None
        self._pending: deque[tuple[CapturedFrame, Future[Detections]]] = deque()
        self._sent = 0
        self._ended = False
        self._failure: BaseException | None = None
        self._last_s = 0.0

    def answers(self) -> Generator[FrameAnswer, None, None]:
        """See :class:`Feed`."""
        reader = threading.Thread(target=self._read, name="demo-reader", daemon=True)
        self._last_s = time.monotonic()
        reader.start()
        try:
            while (answer := self._next()) is not None:
                self._last_s = time.monotonic()
                yield answer
        finally:
            self._stopping.set()
            reader.join()
            for _, future in self._pending:
                future.cancel()

    def _read(self) -> None:
        """Read the frames at their pace; runs in its own thread."""
        try:
            start_s: float | None = None
            last_due_s = 0.0
            for captured in self._captured():
                if start_s is None:
                    start_s = last_due_s = captured.captured_s
                if not self._source.is_live:
                    due_s = start_s + captured.frame.time_s
                    skipped_s = max(due_s - last_due_s - _LONGEST_PAUSE_S, 0.0)
                    start_s, due_s = start_s - skipped_s, due_s - skipped_s
                    last_due_s = due_s
                    self._stopping.wait(max(due_s - time.monotonic(), 0.0))
                    captured = CapturedFrame(captured.frame, due_s, captured.undecodable_before)  # noqa: PLW2901
                if self._stopping.is_set():
                    break
                with self._changed:
                    self.dropped += self._newest is not None
                    self._newest = captured
                    self._changed.notify()
        except BaseException as error:
            self._failure = error
        with self._changed:
            self._ended = True
            self._changed.notify()

    def _next(self) -> FrameAnswer | None:
        """Wait for the next answer; None at the end of the source."""
        with self._changed:
            while True:
                now_s = time.monotonic()
                if self._is_silent(now_s) and not self._pending and self._newest is not None:
                    captured, self._newest = self._newest, None
                    return FrameAnswer(captured, None, self._late())
                self._send(now_s)
                if self._pending:
                    captured, future = self._pending[0]
                    if future.done():
                        self._pending.popleft()
                        return _answer(captured, future)
                    if now_s - captured.captured_s > self._max_age_s:
                        self._pending.popleft()
                        future.cancel()
                        return FrameAnswer(captured, None, self._late())
                elif self._ended and self._newest is None:
                    if self._failure is not None:
                        raise self._failure
                    return None
                self._changed.wait(self._patience_s(now_s))

    def _send(self, now_s: float) -> None:
        """Send the newest frame if the detector is free, unless it is too old."""
        if self._newest is None or self._sent >= self._in_flight:
            return
        captured, self._newest = self._newest, None
        if now_s - captured.captured_s > self._max_age_s:
            self.dropped += 1
            return
        self._sent += 1
        future = self._submit(captured)
        self._pending.append((captured, future))
        future.add_done_callback(self._answered)

    def _answered(self, _: Future[Detections]) -> None:
        with self._changed:
            self._sent -= 1
            self._changed.notify()

    def _is_silent(self, now_s: float) -> bool:
        return self._sent >= self._in_flight and now_s - self._last_s > self._max_age_s

    def _patience_s(self, now_s: float) -> float | None:
        """Longest time to wait for a change."""
        if self._pending:
            return max(self._pending[0][0].captured_s + self._max_age_s - now_s, 0.0) + 1e-3
        return max(self._last_s + self._max_age_s - now_s, 0.0) + 1e-3 if self._sent >= self._in_flight else None

    def _late(self) -> DeadlineExceededError:
        return DeadlineExceededError(f"no answer within {self._max_age_s:g} s")


def _answer(captured: CapturedFrame, future: Future[Detections]) -> FrameAnswer:
    try:
        return FrameAnswer(captured, future.result())
    except ClientError as error:
        return FrameAnswer(captured, None, error)
