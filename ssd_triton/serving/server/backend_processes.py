"""The processes of Triton's python backend, which runs each instance of a model in its own process."""

from __future__ import annotations

import time
from pathlib import Path

import psutil

from ssd_triton.serving.server.installation import STUB

_COLLECTED_S = 2.0
"""Time within which Triton certainly collects the process of an unloaded model."""


class BackendProcesses:
    """The backend processes of one server that is ready.

    Attributes:
        by_instance: The processes by the name of their model instance.
    """

    def __init__(self, server_pid: int, *, may_unload: bool) -> None:
        """Find the processes.

        Args:
            server_pid: A ``tritonserver`` that is ready.
            may_unload: Whether models can be loaded and unloaded: then a process that is gone need not have died.
        """
        self._server_pid = server_pid
        self._may_unload = may_unload
        self._ended_at_s: dict[int, float] = {}
        self.by_instance = backend_processes(server_pid)

    def dead(self) -> list[str]:
        """Return the names of the instances whose process has died.

        Triton soon collects the process of a model that it unloads, whereas one that has died stays a zombie.
        """
        if not self._may_unload:
            return [name for name, process in self.by_instance.items() if not is_alive(process)]
        kept = {name: process for name, process in self.by_instance.items() if process.is_running()}
        self.by_instance = {**kept, **backend_processes(self._server_pid)}
        ended = {name: process.pid for name, process in self.by_instance.items() if not is_alive(process)}
        now_s = time.monotonic()
        self._ended_at_s = {pid: self._ended_at_s.get(pid, now_s) for pid in ended.values()}
        return [name for name, pid in ended.items() if now_s - self._ended_at_s[pid] > _COLLECTED_S]


def backend_processes(server_pid: int) -> dict[str, psutil.Process]:
    """Find the running processes of the python backend, by the name of their model instance.

    Args:
        server_pid: The process of a ``tritonserver`` that is ready; once it has ended, nothing is found.
    """
    found = {}
    try:
        children = psutil.Process(server_pid).children()
    except psutil.NoSuchProcess:
        return {}
    for child in children:
        try:
            command = child.cmdline()
        except psutil.Error:
            continue
        # The stub's arguments: program, model file, shared memory, two sizes, parent, backend folder, handle, instance,
        # runtime folder.
        if command and Path(command[0]).name == STUB:
            found[command[8] if len(command) > 8 else f"process {child.pid}"] = child
    return found


def is_alive(process: psutil.Process) -> bool:
    """Whether a process still runs; a zombie does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
