"""The processes of Triton's python backend: it runs each instance of a model in one of its own."""

from __future__ import annotations

from pathlib import Path

import psutil

from ssd_triton.serving.server.installation import STUB


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
