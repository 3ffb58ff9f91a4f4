"""Watches the processes of a server under attack: memory, CPU time, deaths and returns."""

from __future__ import annotations

import threading
import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import psutil

from ssd_triton.common.model_names import DETECTOR, POSTPROCESS
from ssd_triton.measuring.attack.sending import AttackedServer, AttackError
from ssd_triton.measuring.process_monitor import SERVER
from ssd_triton.serving.server.backend_processes import backend_processes, is_alive

SAMPLE_S = 0.2
_MEMORY_APART_S = 1.0
"""Time between two measurements of memory: to count shared pages, the kernel walks all pages of a process."""
_MIB = 2**20
_READY_POLL_S = 0.1


@dataclass(frozen=True)
class ServerSample:
    """One sample of the server.

    Attributes:
        time_s: Time on the monotonic clock.
        resident_mib: Resident memory of the server and all its descendants, shared pages counted once, measured at
            most a second earlier; 0 while the server is away.
        cpu_s: CPU time so far of all processes except detector and post-processing, which good requests keep busy.
    """

    time_s: float
    resident_mib: float
    cpu_s: float


@dataclass(frozen=True)
class Restart:
    """A death of the server, or of a process of its models.

    Attributes:
        died_s: Time when the death was noticed, on the monotonic clock.
        away_s: Time until the server was ready again; None if it has not come back.
        kinds: Kinds of hostile requests in flight at the time.
    """

    died_s: float
    away_s: float | None
    kinds: frozenset[str]


class ServerWatch:
    """Samples a server in a thread, which ends with the block; use it as a context manager.

    Attributes:
        samples: Samples so far.
        restarts: Deaths so far.
        is_up: Set while the server is ready.

    Raises:
        AttackError: On entry: no ``tritonserver`` on this machine listens at the address, or it is not ready.
    """

    def __init__(self, target: AttackedServer, pid: int | None, in_flight: Callable[[], frozenset[str]]) -> None:
        """Prepare.

        Args:
            target: Where the server listens.
            pid: The server's process, or a parent that restarts it; None finds the process that listens there.
            in_flight: Returns the kinds of the hostile requests in flight.
        """
        self.samples: list[ServerSample] = []
        self.restarts: list[Restart] = []
        self.is_up = threading.Event()
        self._target = target
        self._pid = pid
        self._in_flight = in_flight
        self._cpu_before_s = 0.0
        self._memory_seen_s, self._resident_mib = float("-inf"), 0.0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="server-watch")
        self._server: psutil.Process
        self._stubs: dict[str, psutil.Process] = {}

    def __enter__(self) -> ServerWatch:
        server = self._find()
        if server is None:
            raise AttackError(
                f"no {SERVER} of this machine listens on {self._target.url('grpc')}: start it with 'ssd-triton serve', "
                "or name its process with --pid"
            )
        if not self._target.is_model_ready("ssd"):
            raise AttackError(f"{self._target.url('http')}: the model ssd is not ready: see the server's log")
        self._adopt(server)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    def largest_cpu_s(self, intervals: Sequence[tuple[float, float]]) -> list[float]:
        """Return upper bounds of the CPU time in intervals: from the sample before each to the sample after it."""
        samples = list(self.samples)
        times_s = [sample.time_s for sample in samples]
        found = []
        for begin_s, end_s in intervals:
            first = max(bisect_right(times_s, begin_s) - 1, 0)
            last = min(bisect_left(times_s, end_s), len(times_s) - 1)
            found.append(samples[last].cpu_s - samples[first].cpu_s)
        return found

    def _find(self) -> psutil.Process | None:
        """Find the running server."""
        pids = [self._pid] if self._pid is not None else _listeners(self._target.grpc_port)
        with suppress(psutil.Error):
            for process in (one for pid in pids for one in _tree(psutil.Process(pid))):
                if process.name() == SERVER:
                    return process
        return None

    def _adopt(self, server: psutil.Process) -> None:
        self._server = server
        self._memory_seen_s = float("-inf")
        self._stubs = backend_processes(server.pid)
        self._take()
        self.is_up.set()

    def _watch(self) -> None:
        while not self._stopping.wait(SAMPLE_S):
            if is_alive(self._server) and all(map(is_alive, self._stubs.values())):
                self._take()
            else:
                self._await_return()

    def _take(self) -> None:
        served = {stub.pid for name, stub in self._stubs.items() if name.startswith((DETECTOR, POSTPROCESS))}
        processes, cpu_s = _tree(self._server), 0.0
        for process in processes:
            with suppress(psutil.Error):  # It may end at any moment.
                # User and system time, and those of children that have ended.
                cpu_s += 0.0 if process.pid in served else sum(process.cpu_times()[:4])
        before_s = self.samples[-1].cpu_s if self.samples else 0.0
        cpu_s = max(self._cpu_before_s + cpu_s, before_s)
        now_s = time.monotonic()
        if now_s - self._memory_seen_s >= _MEMORY_APART_S:
            self._memory_seen_s, self._resident_mib = now_s, _resident_mib(processes)
        self.samples.append(ServerSample(now_s, self._resident_mib, cpu_s))

    def _await_return(self) -> None:
        """Wait until a new server is ready with all its processes."""
        died_s = time.monotonic()
        self.is_up.clear()
        self.restarts.append(Restart(died_s, None, self._in_flight()))
        self._cpu_before_s = self.samples[-1].cpu_s
        while not self._stopping.wait(_READY_POLL_S):
            server = self._find()
            is_other = server is not None and server.pid != self._server.pid
            if server is not None and is_other and self._target.is_model_ready("ssd"):
                self.restarts[-1] = replace(self.restarts[-1], away_s=time.monotonic() - died_s)
                self._adopt(server)
                return
            self.samples.append(ServerSample(time.monotonic(), 0.0, self._cpu_before_s))


def steady_growth(samples: Sequence[ServerSample]) -> float:
    """Return the relative growth of resident memory over the second half: its last tenth against its first."""
    middle_s = (samples[0].time_s + samples[-1].time_s) / 2
    memory_mib = [sample.resident_mib for sample in samples if sample.time_s >= middle_s and sample.resident_mib]
    edge = max(len(memory_mib) // 10, 1)
    first, last = memory_mib[:edge], memory_mib[-edge:]
    return sorted(last)[len(last) // 2] / sorted(first)[len(first) // 2] - 1 if memory_mib else 0.0


def _resident_mib(processes: Sequence[psutil.Process]) -> float:
    """Return the resident memory of all processes, with shared pages counted once (proportional set size)."""
    total_bytes = 0
    for process in processes:
        with suppress(psutil.Error):
            total_bytes += process.memory_full_info().pss
    return total_bytes / _MIB


def _tree(process: psutil.Process) -> list[psutil.Process]:
    """Return a process and all its descendants; empty if it has ended."""
    try:
        return [process, *process.children(recursive=True)]
    except psutil.Error:
        return []


def _listeners(port: int) -> set[int]:
    """Return the ids of this user's processes that listen on a port."""
    connections = psutil.net_connections("tcp")
    return {
        one.pid for one in connections if one.pid and one.status == psutil.CONN_LISTEN and [*one.laddr][1:] == [port]
    }
