"""Pools of worker processes."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager


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
