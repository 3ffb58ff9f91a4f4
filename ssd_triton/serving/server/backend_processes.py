"""The processes of Triton's python backend: it runs each instance of a model in one of its own."""

from __future__ import annotations

import time
from pathlib import Path

import psutil

from ssd_triton.serving.server.installation import STUB

_COLLECTED_S = 2.0
"""Triton collects the process of an unloaded model much sooner."""


class BackendProcesses:
    """The processes of one server, from the moment it is ready.

    Attributes:
        by_instance: The processes by the name of their model's instance.
    """

    def __init__(self, server_pid: int, *, may_unload: bool) -> None:
        """Find the processes.

        Args:
            server_pid: A ``tritonserver`` that is ready.
            may_unload: Whether models can be loaded and unloaded: processes then come and go without having died.
        """
        self._server_pid = server_pid
        self._may_unload = may_unload
        self._ended_at_s: dict[int, float] = {}
        self.by_instance = backend_processes(server_pid)

    def dead(self) -> list[str]:
        """Name the instances whose process has died.

        Triton soon collects the process of a model that it unloads. One that has died stays a zombie.
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
    """Find the running processes of the python backend, by the name of their model's instance.

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
        # Program, model's file, shared memory, two sizes, parent, backend's folder, handle, instance, runtime's folder.
        if command and Path(command[0]).name == STUB:
            found[command[8] if len(command) > 8 else f"process {child.pid}"] = child
    return found


def is_alive(process: psutil.Process) -> bool:
    """Whether a process still runs; a zombie does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
