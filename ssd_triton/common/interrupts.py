"""Ctrl-C and SIGTERM at moments that must not be cut short."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_INTERRUPTS = (signal.SIGINT, signal.SIGTERM)


def interrupt_once() -> None:
    """From now on the first Ctrl-C or SIGTERM interrupts, and further ones are ignored: what it starts is finished.

    For a command whose end takes a bounded time. A signal that is ignored already stays so.
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
    """Let Ctrl-C and SIGTERM wait until the block is done; then they do what they would have done at once.

    Python raises KeyboardInterrupt between any two steps of the main thread, even between a call and the use of its
    result. Steps that belong together need this: keep them short. In other threads it does nothing, since they
    are never interrupted. A signal that is ignored, or that ends the process without Python, stays so.
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
        # A signal from here on may end the loop below early; what it leaves in place then passes signals on.
        deferring = False
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for arrival in arrived:
            handlers[signal.Signals(arrival)](arrival, None)
