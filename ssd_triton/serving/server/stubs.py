"""The processes of a server: the python backend runs each instance of a model in one of its own."""

from __future__ import annotations

from pathlib import Path

import psutil

from ssd_triton.serving.server.bundle import STUB


def find_stubs(server_pid: int) -> dict[str, psutil.Process]:
    """The running processes of the python backend, by the name of their model's instance.

    Args:
        server_pid: Of a ``tritonserver`` that is ready; no process once it has ended.
    """
    stubs = {}
    try:
        children = psutil.Process(server_pid).children()
    except psutil.NoSuchProcess:
        return {}
    for child in children:
        try:
            command = child.cmdline()
        except psutil.Error:
            continue
        # program, model's file, shared memory, two sizes, parent, backend's folder, handle, instance, runtime's folder
        if command and Path(command[0]).name == STUB:
            stubs[command[8] if len(command) > 8 else f"process {child.pid}"] = child
    return stubs


def is_alive(process: psutil.Process) -> bool:
    """Whether a process still runs; one that only waits to be reaped does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
