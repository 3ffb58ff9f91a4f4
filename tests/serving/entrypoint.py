"""The container's entry point, started as a process."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from ssd_triton.common.files import ROOT
from tests.conftest import group_members

Start = Callable[..., subprocess.Popen[str]]


@contextlib.contextmanager
def starting(folder: Path) -> Iterator[Start]:
    """Start the entry point with a cache and a runtime folder of its own; what was started is killed at the end."""
    started: list[subprocess.Popen[str]] = []

    def run(cache: Path, *arguments: object) -> subprocess.Popen[str]:
        folders = ["--engine-cache", cache, "--runtime-dir", cache.parent / f"run{len(started)}"]
        command = [sys.executable, ROOT / "tools/container_entrypoint.py", *folders, *arguments]
        process = subprocess.Popen(
            list(map(str, command)),
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        if group_members(process.pid):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
