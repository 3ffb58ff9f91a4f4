"""Frames in system shared memory, for a server on the same machine: pixels are not sent over the connection."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import mmap
import os
import queue
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ssd_triton.client.errors import (
    ClientError,
    ServerFailedError,
    SharedMemoryForgottenError,
    SharedMemoryUnavailableError,
)
from ssd_triton.client.transport import SharedInput, Transport
from ssd_triton.common.arrays import AnyArray

_PREFIX = "ssd_triton_frame"
_FOLDER = Path("/dev/shm")  # noqa: S108 - where Linux keeps POSIX shared memory, not a temporary file
_numbers = itertools.count()


class _Region:
    """A POSIX shared-memory region, mapped and locked by this process until :meth:`close`.

    Raises:
        OSError: There is not enough memory, or another process holds the region.
    """

    def __init__(self, name: str, byte_size: int) -> None:
        self._path = _FOLDER / name
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._descriptor)
            raise
        try:
            os.ftruncate(self._descriptor, byte_size)
            # Reserves the memory: otherwise a write that the system cannot back would kill this process.
            os.posix_fallocate(self._descriptor, 0, byte_size)
            self._map = mmap.mmap(self._descriptor, byte_size)
        except OSError:
            self._unlink()
            raise

    @property
    def byte_size(self) -> int:
        """Size of the region, bytes."""
        return len(self._map)

    def write(self, frames: AnyArray) -> None:
        """Copy UINT8 frames to the beginning of the region."""
        np.copyto(np.frombuffer(self._map, np.uint8, frames.size).reshape(frames.shape), frames)

    def close(self) -> None:
        """Unmap and free the region."""
        self._map.close()
        self._unlink()

    def _unlink(self) -> None:
        self._path.unlink(missing_ok=True)
        os.close(self._descriptor)


@dataclass
class _Slot:
    """A region as large as the largest frame it has held.

    Attributes:
        name: The region's name, for the system and for the server.
        region: None until the first frame.
        server_run: Number of the server run in which the region was registered.
    """

    name: str
    region: _Region | None = None
    server_run: int = 0


class FramePool:
    """One region for each request in flight, reused from frame to frame."""

    def __init__(self, transport: Transport, slots: int) -> None:
        self._transport = transport
        self._dead: set[str] | None = _remove_leftovers()
        self._server_run = 0
        self._free: queue.SimpleQueue[_Slot] = queue.SimpleQueue()
        self._slots = [_Slot(f"{_PREFIX}_{os.getpid()}_{next(_numbers)}") for _ in range(slots)]
        for slot in self._slots:
            self._free.put(slot)

    @contextmanager
    def place(self, frames: AnyArray) -> Iterator[SharedInput]:
        """Copy UINT8 [N, H, W, 3] into a free region, which stays occupied until the block ends.

        After a :class:`SharedMemoryForgottenError` in the block, every region is registered again before its next use.

        Raises:
            SharedMemoryUnavailableError: The server cannot map the region.
            ClientError: The server does not answer.
        """
        slot = self._free.get()
        try:
            self._region(slot, frames.nbytes).write(frames)
            yield slot.name, frames.nbytes, list(frames.shape), "UINT8"
        except SharedMemoryForgottenError:
            # A server that does not know one region was restarted, and knows none that is as old.
            self._server_run = max(self._server_run, slot.server_run + 1)
            raise
        finally:
            self._free.put(slot)

    def close(self) -> None:
        """Unregister and free the regions."""
        for slot in self._slots:
            self._release(slot)

    def _region(self, slot: _Slot, byte_size: int) -> _Region:
        """Return a slot's region, large enough and registered with the server."""
        if slot.region is not None and slot.region.byte_size >= byte_size and slot.server_run == self._server_run:
            return slot.region
        self._release(slot)
        slot.server_run = self._server_run
        try:
            slot.region = _Region(slot.name, byte_size)
            self._transport.register_shared_memory(slot.name, f"/{slot.name}", byte_size)
        except ServerFailedError as error:
            self._release(slot)
            raise SharedMemoryUnavailableError(
                f"the server cannot map this machine's shared memory: {error}"
            ) from error
        except OSError as error:
            raise SharedMemoryUnavailableError(f"got no {byte_size} bytes of {_FOLDER}: {error.strerror}") from error
        except ClientError:
            self._release(slot)
            raise
        self._unregister_dead()
        return slot.region

    def _unregister_dead(self) -> None:
        """Unregister the regions of dead processes; otherwise the server would hold their memory until it ends."""
        if self._dead is None:
            return
        dead, self._dead = self._dead, None
        # Best effort: this client's frames do not depend on it.
        with contextlib.suppress(ClientError):
            for name in self._transport.registered_shared_memory():
                if name in dead or (_owner(name) is not None and not (_FOLDER / name).exists()):
                    self._transport.unregister_shared_memory(name)

    def _release(self, slot: _Slot) -> None:
        if slot.region is None:
            return
        # A server that is gone has no region left to unregister.
        with contextlib.suppress(ClientError):
            self._transport.unregister_shared_memory(slot.name)
        slot.region.close()
        slot.region = None


def frame_regions(pid: int) -> list[Path]:
    """Return the regions of all clients in a process, as files."""
    return list(_FOLDER.glob(f"{_PREFIX}_{pid}_*"))


def _remove_leftovers() -> set[str]:
    """Free the regions of processes that were killed, and return the names of the regions."""
    dead = {region.name for region in _FOLDER.glob(f"{_PREFIX}_*") if _is_left_over(region)}
    for name in dead:
        (_FOLDER / name).unlink(missing_ok=True)
    return dead


def _is_left_over(region: Path) -> bool:
    """Whether the process of a region is dead: no process has its id, and nobody holds the region's lock.

    The id alone does not suffice: a live process in another container looks dead from here.
    """
    pid = _owner(region.name)
    if pid is None or Path(f"/proc/{pid}").exists():
        return False
    try:
        descriptor = os.open(region, os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def _owner(name: str) -> int | None:
    """Return the id of the process that a region belongs to; None for the regions of other programs."""
    match = re.fullmatch(rf"{_PREFIX}_(\d+)_\d+", name)
    return int(match[1]) if match else None
