"""Encoding pictures in a thread of its own, so that it overlaps with waiting for the server."""

from __future__ import annotations

import queue
import threading
import time
from types import TracebackType

from ssd_triton.common.arrays import UInt8Array
from ssd_triton.common.interrupts import interrupts_deferred
from ssd_triton.driving.demo.timing import StageTimes
from ssd_triton.media.video import VideoWriter

_WAITING = 4
"""Number of pictures that may wait to be encoded. With more, :meth:`BackgroundWriter.write` blocks, and in real time
frames are dropped."""


class BackgroundWriter:
    """Hands pictures to a :class:`VideoWriter`; a context manager that opens and closes it.

    Args:
        writer: Not entered yet.
        times: Records the times of ``write``.
    """

    def __init__(self, writer: VideoWriter, times: StageTimes) -> None:
        self._writer = writer
        self._times = times
        self._pictures: queue.Queue[tuple[UInt8Array, float] | None] = queue.Queue(_WAITING)
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="demo-writer")

    def __enter__(self) -> BackgroundWriter:
        self._writer.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with interrupts_deferred():
            if self._thread.is_alive():
                self._pictures.put(None)
                self._thread.join()
            self._writer.__exit__(kind, error, trace)
        if self._failure is not None and error is None:
            raise self._failure

    def write(self, image_rgb: UInt8Array, time_s: float) -> None:
        """Queue a picture for :meth:`VideoWriter.write`; it must not be changed afterwards.

        Raises:
            VideoError: An earlier picture could not be written.
        """
        if self._failure is not None:
            raise self._failure
        # An interrupt inside the queue could leave its lock held, and the thread would wait for it for ever. The thread
        # starts here and not on entry: once the block has begun, its exit is sure to stop the thread.
        with interrupts_deferred():
            if not self._thread.is_alive():
                self._thread.start()
            self._pictures.put((image_rgb, time_s))

    def _run(self) -> None:
        while (item := self._pictures.get()) is not None:
            if self._failure is None:
                start_s = time.perf_counter()
                try:
                    self._writer.write(*item)
                except BaseException as error:
                    # Raised later in the thread that calls `write`; the remaining pictures are discarded.
                    self._failure = error
                self._times.add("write", start_s)
