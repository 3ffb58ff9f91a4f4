"""Frames with their detections, in order: all of a file's, or in real time the newest ones."""

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
"""Between two frames of a file in real time: longer gaps of its timestamps, where its clock jumped, are skipped."""


class FrameDetector(Protocol):
    """What detects: :class:`ssd_triton.client.DetectorClient`."""

    def submit_frame(self, frame_rgb: UInt8Array) -> Future[Detections]:
        """Start to detect in UINT8 [H, W, 3] RGB."""


@dataclass(frozen=True)
class TakenFrame:
    """A frame, when it was taken, and what was lost before it.

    Attributes:
        frame: As the source gave it.
        taken_s: By :func:`time.monotonic`.
        undecodable_before: Frames of the source, up to this one, that could not be decoded.
    """

    frame: Frame
    taken_s: float
    undecodable_before: int


@dataclass(frozen=True)
class Answer:
    """What came back for a frame.

    Attributes:
        taken: The frame.
        detections: None when there was no answer, or none in time.
        problem: Why there was none.
    """

    taken: TakenFrame
    detections: Detections | None
    problem: ClientError | None = None


class Feed(ABC):
    """Frames with their detections, to be asked for once.

    Args:
        source: An open source.
        client: Detects.
        in_flight: Frames to have under way at once, at least 1.
        times: Where the times of ``read`` and ``detect`` are noted.

    Attributes:
        dropped: Frames so far that were given up before they were sent.
    """

    is_real_time = False

    def __init__(self, source: VideoSource, client: FrameDetector, in_flight: int, times: StageTimes) -> None:
        self._source = source
        self._client = client
        self._in_flight = in_flight
        self._times = times
        self.dropped = 0

    @abstractmethod
    def answers(self) -> Generator[Answer, None, None]:
        """Yield the answers in the order of the frames.

        Raises:
            VideoError: The source stopped working.
        """

    def _taken(self) -> Iterator[TakenFrame]:
        """Yield the source's frames, noting how long each took to read."""
        start_s = time.perf_counter()
        for frame in self._source:
            self._times.add("read", start_s)
            yield TakenFrame(frame, time.monotonic(), self._source.undecodable_frames)
            start_s = time.perf_counter()

    def _submit(self, taken: TakenFrame) -> Future[Detections]:
        start_s = time.perf_counter()
        future = self._client.submit_frame(taken.frame.image_rgb)
        future.add_done_callback(lambda _: self._times.add("detect", start_s))
        return future


class FileFeed(Feed):
    """Every frame of the source, each waited for; the next ones are on their way meanwhile."""

    def answers(self) -> Generator[Answer, None, None]:
        """See :class:`Feed`."""
        for taken, future in submit_ahead(self._taken(), self._submit, self._in_flight):
            yield _answer(taken, future)


class RealTimeFeed(Feed):
    """The newest frame whenever the detector is free, at the pace of the source's timestamps.

    A frame that a newer one overtakes before the detector is free for it is dropped, and so is one that is too old by
    then. A frame whose answer takes too long goes on without; and while the detector does not answer at all, a frame
    goes on without having been sent, so that silence is noticed.

    Args:
        source: As for :class:`Feed`; a file is paced, a live source is not.
        client: As for :class:`Feed`.
        in_flight: As for :class:`Feed`.
        times: As for :class:`Feed`.
        max_age_s: From taking a frame to its answer.
    """

    is_real_time = True

    def __init__(
        self, source: VideoSource, client: FrameDetector, in_flight: int, times: StageTimes, max_age_s: float
    ) -> None:
        super().__init__(source, client, in_flight, times)
        self._max_age_s = max_age_s
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        self._newest: TakenFrame | None = None
        self._under_way: deque[tuple[TakenFrame, Future[Detections]]] = deque()
        self._sent = 0
        self._ended = False
        self._failure: BaseException | None = None
        self._last_s = 0.0

    def answers(self) -> Generator[Answer, None, None]:
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
            for _, future in self._under_way:
                future.cancel()

    def _read(self) -> None:
        """Take the frames as they come; runs in a thread of its own."""
        try:
            start_s: float | None = None
            last_due_s = 0.0
            for taken in self._taken():
                if start_s is None:
                    start_s = last_due_s = taken.taken_s
                if not self._source.is_live:
                    due_s = start_s + taken.frame.time_s
                    skipped_s = max(due_s - last_due_s - _LONGEST_PAUSE_S, 0.0)
                    start_s, due_s = start_s - skipped_s, due_s - skipped_s
                    last_due_s = due_s
                    self._stopping.wait(max(due_s - time.monotonic(), 0.0))
                    taken = TakenFrame(taken.frame, due_s, taken.undecodable_before)  # noqa: PLW2901
                if self._stopping.is_set():
                    break
                with self._changed:
                    self.dropped += self._newest is not None
                    self._newest = taken
                    self._changed.notify()
        except BaseException as error:
            self._failure = error
        with self._changed:
            self._ended = True
            self._changed.notify()

    def _next(self) -> Answer | None:
        """Wait for the next answer; None at the end of the source."""
        with self._changed:
            while True:
                now_s = time.monotonic()
                if self._is_silent(now_s) and not self._under_way and self._newest is not None:
                    taken, self._newest = self._newest, None
                    return Answer(taken, None, self._late())
                self._send(now_s)
                if self._under_way:
                    taken, future = self._under_way[0]
                    if future.done():
                        self._under_way.popleft()
                        return _answer(taken, future)
                    if now_s - taken.taken_s > self._max_age_s:
                        self._under_way.popleft()
                        future.cancel()
                        return Answer(taken, None, self._late())
                elif self._ended and self._newest is None:
                    if self._failure is not None:
                        raise self._failure
                    return None
                self._changed.wait(self._patience_s(now_s))

    def _send(self, now_s: float) -> None:
        """Send the newest frame if the detector is free, unless it is too old."""
        if self._newest is None or self._sent >= self._in_flight:
            return
        taken, self._newest = self._newest, None
        if now_s - taken.taken_s > self._max_age_s:
            self.dropped += 1
            return
        self._sent += 1
        future = self._submit(taken)
        self._under_way.append((taken, future))
        future.add_done_callback(self._answered)

    def _answered(self, _: Future[Detections]) -> None:
        with self._changed:
            self._sent -= 1
            self._changed.notify()

    def _is_silent(self, now_s: float) -> bool:
        return self._sent >= self._in_flight and now_s - self._last_s > self._max_age_s

    def _patience_s(self, now_s: float) -> float | None:
        """How long to wait at most for something to change."""
        if self._under_way:
            return max(self._under_way[0][0].taken_s + self._max_age_s - now_s, 0.0) + 1e-3
        return max(self._last_s + self._max_age_s - now_s, 0.0) + 1e-3 if self._sent >= self._in_flight else None

    def _late(self) -> DeadlineExceededError:
        return DeadlineExceededError(f"no answer within {self._max_age_s:g} s")


def _answer(taken: TakenFrame, future: Future[Detections]) -> Answer:
    try:
        return Answer(taken, future.result())
    except ClientError as error:
        return Answer(taken, None, error)
