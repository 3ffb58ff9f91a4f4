"""Child processes that do not outlive the work of their parent."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any


@contextmanager
def process_pool(workers: int, initializer: Callable[[], None] | None = None) -> Iterator[ProcessPoolExecutor]:
    """Give a pool whose processes start at once and ignore Ctrl-C; at the end, pending work is cancelled.

    Args:
        workers: Number of processes.
        initializer: Called first in each process.
    """
    # Spawned, not forked: neither CUDA nor threads survive a fork.
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer)
    try:
        with children_ignore_interrupts():
            for _ in range(workers):
                pool.submit(os.getpid)
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def children_ignore_interrupts() -> Iterator[None]:
    """Let the processes that the block starts ignore Ctrl-C.

    It reaches the whole process group, but only the parent must react. Children inherit the blocked signal; the parent
    receives it after the block.
    """
    # Otherwise it starts with the first child, and then unblocks the signal that is blocked below.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_group(process: subprocess.Popen[Any], timeout_s: float, number: signal.Signals = signal.SIGTERM) -> None:
    """End a process that leads a group by a signal, then kill whatever is left of the group.

    An interrupt ends the wait, not the clean-up: a second Ctrl-C kills the group at once.

    Args:
        process: A process that was started with ``start_new_session=True``.
        timeout_s: Time from the signal until the group is killed.
        number: The signal that asks the process to end.
    """
    try:
        process.send_signal(number)
        # Reads the remaining output: the process would block on a full pipe.
        with suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=timeout_s)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def end_children() -> None:
    """Terminate all descendants of this process, to abort work that must not be finished."""
    import psutil

    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            process.terminate()


def tree_cpu_s(pid: int) -> float:
    """Return the CPU time of a process and its live descendants, seconds."""
    import psutil

    parent = psutil.Process(pid)
    total_s = 0.0
    for process in (parent, *parent.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total_s += times.user + times.system
    return total_s


def process_cpu_s(pid: int) -> float:
    """Return the CPU time of a live process alone, seconds; needs no psutil.

    Raises:
        OSError: It has ended.
    """
    # The second field, its name, may hold spaces and brackets.
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    user, system = int(fields[11]), int(fields[12])
    return (user + system) / os.sysconf("SC_CLK_TCK")
