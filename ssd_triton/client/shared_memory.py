"""Frames in system shared memory, for a server on the same machine: the pixels are not sent."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import queue
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssd_triton.client.errors import (
    ClientError,
    ServerFailedError,
    SharedMemoryForgottenError,
    SharedMemoryUnavailableError,
)
from ssd_triton.client.transport import SharedInput, Transport
from ssd_triton.common.arrays import AnyArray

with warnings.catch_warnings():
    # tritonclient imports pkg_resources, which announces its own end.
    warnings.simplefilter("ignore")
    import tritonclient.utils.shared_memory as system_shared_memory

_PREFIX = "ssd_triton_frame"
_FOLDER = Path("/dev/shm")  # noqa: S108 - where POSIX shared memory lies, not a temporary file
_numbers = itertools.count()


@dataclass
class _Slot:
    """One region, as large as the largest frame it has held; None until the first.

    Attributes:
        lock: A descriptor that holds the region's lock for as long as this process lives.
        server_run: Which run of the server has been told of it.
    """

    name: str
    handle: Any = None
    byte_size: int = 0
    lock: int = -1
    server_run: int = 0


class FramePool:
    """As many regions as there are requests in flight; each is reused from frame to frame."""

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
        """Copy UINT8 [N, H, W, 3] into a free region for as long as the block lasts.

        A :class:`SharedMemoryForgottenError` in the block has all regions made anew when they are used next.

        Raises:
            SharedMemoryUnavailableError: The server cannot map the region.
            ClientError: The server does not answer.
        """
        slot = self._free.get()
        try:
            self._ensure_size(slot, frames.nbytes)
            system_shared_memory.set_shared_memory_region(slot.handle, [frames])
            yield slot.name, frames.nbytes, list(frames.shape), "UINT8"
        except SharedMemoryForgottenError:
            # What one region tells holds for all that were made before.
            self._server_run = max(self._server_run, slot.server_run + 1)
            raise
        finally:
            self._free.put(slot)

    def close(self) -> None:
        """Have the server forget the regions, and free them."""
        for slot in self._slots:
            self._release(slot)

    def _ensure_size(self, slot: _Slot, byte_size: int) -> None:
        if slot.byte_size >= byte_size and slot.server_run == self._server_run:
            return
        self._release(slot)
        slot.server_run = self._server_run
        slot.handle = system_shared_memory.create_shared_memory_region(slot.name, f"/{slot.name}", byte_size)
        slot.byte_size = byte_size
        try:
            slot.lock = _lock_and_reserve(_FOLDER / slot.name, byte_size)
            self._transport.register_shared_memory(slot.name, f"/{slot.name}", byte_size)
        except ServerFailedError as error:
            self._release(slot)
            raise SharedMemoryUnavailableError(
                f"the server cannot map this machine's shared memory: {error}"
            ) from error
        except OSError as error:
            self._release(slot)
            raise SharedMemoryUnavailableError(f"got no {byte_size} bytes of {_FOLDER}: {error.strerror}") from error
        except ClientError:
            self._release(slot)
            raise
        self._unregister_dead()

    def _unregister_dead(self) -> None:
        """Have the server let go of the regions of dead processes, which it would hold until its end."""
        if self._dead is None:
            return
        dead, self._dead = self._dead, None
        # A courtesy to the server, which may not allow it; frames travel without.
        with contextlib.suppress(ClientError):
            for name in self._transport.registered_shared_memory():
                if name in dead or (_owner(name) is not None and not (_FOLDER / name).exists()):
                    self._transport.unregister_shared_memory(name)

    def _release(self, slot: _Slot) -> None:
        if slot.handle is None:
            return
        # A server that is gone has forgotten the region already.
        with contextlib.suppress(ClientError):
            self._transport.unregister_shared_memory(slot.name)
        system_shared_memory.destroy_shared_memory_region(slot.handle)
        if slot.lock >= 0:
            os.close(slot.lock)
        slot.handle, slot.byte_size, slot.lock = None, 0, -1


def frame_regions(pid: int) -> list[Path]:
    """The regions of all clients in a process, as they lie in the file system."""
    return list(_FOLDER.glob(f"{_PREFIX}_{pid}_*"))


def _remove_leftovers() -> set[str]:
    """Free the regions of processes that were killed before they could; their names."""
    dead = {region.name for region in _FOLDER.glob(f"{_PREFIX}_*") if _is_left_over(region)}
    for name in dead:
        (_FOLDER / name).unlink(missing_ok=True)
    return dead


def _is_left_over(region: Path) -> bool:
    """Whether the process of a region is dead: nobody has its number, and nobody holds the lock.

    In another container, a process that lives may seem to be dead by its number alone.
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
    """The process that a region belongs to; None for the regions of other programs."""
    match = re.fullmatch(rf"{_PREFIX}_(\d+)_\d+", name)
    return int(match[1]) if match else None


def _lock_and_reserve(region: Path, byte_size: int) -> int:
    """Lock a region, and have all of its memory provided: the first write into one that lacks it kills a process.

    Returns:
        The descriptor that holds the lock.

    Raises:
        OSError: There is not enough memory.
    """
    descriptor = os.open(region, os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.posix_fallocate(descriptor, 0, byte_size)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
