"""The working folder of a server, and the clean-up after servers that were killed.

A server's folder is locked as long as the process that started the server lives; the kernel releases the lock however
the process ends. A folder that can be locked is therefore left over, and so is the shared memory named after it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import psutil

_PREFIX = "ssd-triton-"
_FOLDER_NAME = re.compile(rf"{_PREFIX}[a-z0-9_]{{8}}")
"""Names as :func:`tempfile.mkdtemp` generates them."""
_LOCK_NAME = "owner"
_SHM = Path("/dev/shm")  # noqa: S108 - where the python backend's shared memory is, not a temporary file
_PYTHON_ENV_PARENT = Path("/tmp")  # noqa: S108 - the python backend always makes its folder there
_PYTHON_ENV = re.compile(r"python_env_\w{6}")
_LOADING_S = 60.0
"""Time after its start within which a server loads its backends, which create the ``python_env_*`` folders."""
_CLOCK_TICK_S = 0.02
"""Tolerance in comparing times: start times of processes are rounded to clock ticks, times of files are exact."""


class RuntimeDir:
    """A server's working folder, and the regions of shared memory that are named after it.

    Attributes:
        path: The folder.
    """

    def __init__(self) -> None:
        """Create a new folder and lock it."""
        while True:
            self.path = Path(tempfile.mkdtemp(prefix=_PREFIX))
            # The sweep of another process may remove the folder before it is locked.
            with contextlib.suppress(FileNotFoundError):
                self._lock = os.open(self.path / _LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o600)
                fcntl.flock(self._lock, fcntl.LOCK_EX)
                if (self.path / _LOCK_NAME).exists():
                    return
                os.close(self._lock)

    def shared_memory(self) -> list[Path]:
        """List the shared memory of the server's python backend, as files."""
        return _regions(self.path.name)

    def claim_python_envs(self, server_pid: int) -> None:
        """Record which ``python_env_*`` folders belong to a server that has just become ready.

        Each Python-based backend creates one when it is loaded and removes it when it ends, unless it is killed.
        Folders that may belong to another server without a claim are not claimed.
        """
        claims = _claims()
        others = _unclaiming_servers(claims)
        start_s = others.pop(server_pid, psutil.Process(server_pid).create_time())
        mine = [path.name for path in _made_by([start_s], claims) if path not in _made_by(others.values(), claims)]
        os.pwrite(self._lock, json.dumps({"server_pid": server_pid, "python_envs": mine}).encode(), 0)

    def remove(self) -> None:
        """Remove everything after the server has ended; may be called more than once."""
        _remove(self.path)
        lock, self._lock = self._lock, -1
        # Never closed twice: by then the descriptor could belong to another file.
        if lock >= 0:
            os.close(lock)


def sweep() -> None:
    """Remove what is left of servers whose starting process is dead, and nothing of a live server."""
    for folder in _folders():
        with contextlib.suppress(OSError), _unless_in_use(folder):
            _remove(folder)
    claims = _claims()
    in_use = _made_by(_unclaiming_servers(claims).values(), claims)
    claimed = {name for names in claims.values() for name in names}
    for path in _python_envs():
        if path not in in_use and path.name not in claimed:
            # A folder that is not empty is in use, and rmdir fails.
            with contextlib.suppress(OSError):
                path.rmdir()


@contextlib.contextmanager
def _unless_in_use(folder: Path) -> Iterator[None]:
    """Lock a folder; raises OSError if its owner lives."""
    try:
        lock = os.open(folder / _LOCK_NAME, os.O_RDWR | os.O_NOFOLLOW)
    except FileNotFoundError:
        # The owner died before it could lock the folder, or is about to lock it and then creates another.
        folder.rmdir()
        raise
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(lock)


def _claims() -> dict[int, list[str]]:
    """Return the folders of the python backend that servers have claimed, by the server's process id."""
    claims = {}
    for folder in _folders():
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            claim = json.loads((folder / _LOCK_NAME).read_text(encoding="utf-8"))
            claims[int(claim["server_pid"])] = [str(name) for name in claim["python_envs"]]
    return claims


def _unclaiming_servers(claims: dict[int, list[str]]) -> dict[int, float]:
    """Return the start times of running servers without a claim, by process id, in seconds since the epoch."""
    return {
        process.pid: process.info["create_time"]
        for process in psutil.process_iter(["name", "create_time"])
        if process.info["name"] == "tritonserver" and process.pid not in claims
    }


def _made_by(starts_s: Iterable[float], claims: dict[int, list[str]]) -> list[Path]:
    """Return the unclaimed folders of the python backend that servers with these start times may have created."""
    claimed = {name for names in claims.values() for name in names}
    starts_s, found = list(starts_s), []
    for path in _python_envs():
        with contextlib.suppress(FileNotFoundError):
            made_s = path.stat().st_ctime + _CLOCK_TICK_S
            if path.name not in claimed and any(start <= made_s <= start + _LOADING_S for start in starts_s):
                found.append(path)
    return found


def _remove(folder: Path) -> None:
    """Remove a folder, after its regions of shared memory: the folder shows to which server a region belongs."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        for name in json.loads((folder / _LOCK_NAME).read_text(encoding="utf-8"))["python_envs"]:
            if _PYTHON_ENV.fullmatch(name):
                with contextlib.suppress(OSError):
                    (_PYTHON_ENV_PARENT / name).rmdir()
    for region in _regions(folder.name):
        region.unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def _regions(prefix: str) -> list[Path]:
    return [path for path in _SHM.glob(f"{prefix}*") if _is_own(path, stat.S_ISREG)]


def _folders() -> list[Path]:
    found = Path(tempfile.gettempdir()).glob(f"{_PREFIX}*")
    return [path for path in found if _FOLDER_NAME.fullmatch(path.name) and _is_own(path, stat.S_ISDIR)]


def _python_envs() -> list[Path]:
    found = _PYTHON_ENV_PARENT.glob("python_env_*")
    return [path for path in found if _PYTHON_ENV.fullmatch(path.name) and _is_own(path, stat.S_ISDIR)]


def _is_own(path: Path, is_kind: Callable[[int], bool]) -> bool:
    """Whether a path is of the given kind, not a link, and belongs to this user."""
    try:
        status = path.lstat()
    except OSError:
        return False
    return is_kind(status.st_mode) and status.st_uid == os.geteuid()
