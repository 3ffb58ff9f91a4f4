"""Processes that end with their parent's work."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any


def start_pool(workers: int, initializer: Callable[[], None] | None = None) -> ProcessPoolExecutor:
    """Start all processes of a pool. They ignore Ctrl-C; the caller shuts them down.

    Args:
        workers: Number of processes.
        initializer: Called first in each process.
    """
    # Spawned, not forked: neither CUDA nor threads survive a fork.
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer)
    # Ctrl-C reaches the whole process group, but only the parent shall react. Processes inherit an ignored signal.
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        for _ in range(workers):
            pool.submit(os.getpid)
    finally:
        signal.signal(signal.SIGINT, before)
    return pool


@contextmanager
def process_pool(workers: int, initializer: Callable[[], None] | None = None) -> Iterator[ProcessPoolExecutor]:
    """A pool of :func:`start_pool` for a block; at its end, work that has not begun is cancelled."""
    pool = start_pool(workers, initializer)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def end_group(process: subprocess.Popen[Any], timeout_s: float, number: signal.Signals = signal.SIGTERM) -> None:
    """End a process that leads a group, and all that is left of the group: politely, then not.

    An interrupt ends the wait, not the cleanup: a second Ctrl-C kills the group at once.

    Args:
        process: Started with ``start_new_session=True``.
        timeout_s: From the signal until the group is killed.
        number: The signal that asks the process to end.
    """
    try:
        process.send_signal(number)
        # Reads what the process still prints, which would otherwise wait for a reader.
        with suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=timeout_s)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
