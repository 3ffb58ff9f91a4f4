"""Handling of Ctrl-C and SIGTERM around steps that must not be cut short."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_INTERRUPTS = (signal.SIGINT, signal.SIGTERM)
_SAME_S = 1.0
"""Signals that follow an interrupt within this time belong to it."""


def interrupt_on_signals() -> None:
    """Let Ctrl-C and SIGTERM raise KeyboardInterrupt, once for signals that follow each other at once.

    ``timeout`` signals first the process and then its group, and people press Ctrl-C twice: a second exception would
    end what keeps the results after the first one. SIGINT stays ignored if it is, as shells do for background jobs of a
    script; SIGTERM is not.
    """
    last_s = float("-inf")

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal last_s
        now_s = time.monotonic()
        if now_s - last_s > _SAME_S:
            last_s = now_s
            raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, handle)
    if callable(signal.getsignal(signal.SIGINT)):
        signal.signal(signal.SIGINT, handle)


def interrupt_once() -> None:
    """Let the first Ctrl-C or SIGTERM interrupt, and ignore further ones, so that the clean-up always completes.

    For a command whose clean-up takes a bounded time. A signal that is already ignored stays ignored.
    """

    def handle(number: int, frame: FrameType | None) -> None:
        for one in handled:
            signal.signal(one, signal.SIG_IGN)
        raise KeyboardInterrupt

    handled = [number for number in _INTERRUPTS if callable(signal.getsignal(number))]
    for number in handled:
        signal.signal(number, handle)


@contextmanager
def interrupts_deferred() -> Iterator[None]:
    """Defer Ctrl-C and SIGTERM until the block is done; then they take their usual effect.

    Python raises KeyboardInterrupt between any two steps of the main thread, even between a call and the use of its
    result. Use this around steps that belong together, and keep them short. In other threads it does nothing, since
    Python never interrupts them. A signal that is ignored, or that ends the process by the system's default action, is
    not deferred.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    current = {number: signal.getsignal(number) for number in _INTERRUPTS}
    handlers = {number: handler for number, handler in current.items() if callable(handler)}
    arrived: list[int] = []
    deferring = True

    def handle(number: int, frame: FrameType | None) -> None:
        if deferring:
            arrived.append(number)
        else:
            handlers[signal.Signals(number)](number, frame)

    try:
        for number in handlers:
            signal.signal(number, handle)
        yield
    finally:
        # From here on a signal may end the loop below early. A handler that the loop then leaves installed passes
        # signals on.
        deferring = False
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for arrival in arrived:
            handlers[signal.Signals(arrival)](arrival, None)
