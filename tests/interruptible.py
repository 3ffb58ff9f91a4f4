"""Processes that tests interrupt."""

from __future__ import annotations

import signal
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

_LONGEST_S = 180.0


@contextmanager
def sigint(handler: Any) -> Iterator[None]:
    """Give SIGINT a handler for a while; processes started meanwhile ignore SIGINT if it is ``SIG_IGN``."""
    before = signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


class Interruptible(subprocess.Popen[str]):
    """A process that SIGINT interrupts even where this one ignores it, as in ``nohup make test &``.

    It is killed at the end of its block, and after three minutes in any case, so that no test waits for ever.
    """

    def __init__(self, command: Sequence[str | Path], **options: Any) -> None:
        with sigint(signal.default_int_handler):
            super().__init__(command, text=True, **options)
        self._limit = threading.Timer(_LONGEST_S, self.kill)
        self._limit.daemon = True
        self._limit.start()

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._limit.cancel()
        self.kill()
        super().__exit__(kind, value, traceback)
