"""Frames in system shared memory, for a server on the same machine: the pixels are not sent."""

from __future__ import annotations

import contextlib
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

from ssd_triton.arrays import AnyArray
from ssd_triton.client.errors import ClientError, ServerFailedError, SharedMemoryUnavailableError
from ssd_triton.client.transport import SharedInput, Transport

with warnings.catch_warnings():
    # tritonclient imports pkg_resources, which announces its own end.
    warnings.simplefilter("ignore")
    import tritonclient.utils.shared_memory as system_shared_memory

_PREFIX = "ssd_triton_frame"
_FOLDER = Path("/dev/shm")  # noqa: S108 - where POSIX shared memory lies, not a temporary file
_numbers = itertools.count()


@dataclass
class _Slot:
    """One region, as large as the largest frame it has held; None until the first."""

    name: str
    handle: Any = None
    byte_size: int = 0


class FramePool:
    """As many regions as there are requests in flight; each is reused from frame to frame."""

    def __init__(self, transport: Transport, slots: int) -> None:
        _remove_leftovers()
        self._transport = transport
        self._free: queue.SimpleQueue[_Slot] = queue.SimpleQueue()
        self._slots = [_Slot(f"{_PREFIX}_{os.getpid()}_{next(_numbers)}") for _ in range(slots)]
        for slot in self._slots:
            self._free.put(slot)

    @contextmanager
    def place(self, frames: AnyArray) -> Iterator[SharedInput]:
        """Copy UINT8 [N, H, W, 3] into a free region for as long as the block lasts.

        Raises:
            SharedMemoryUnavailableError: The server cannot map the region.
            ClientError: The server does not answer.
        """
        slot = self._free.get()
        try:
            self._ensure_size(slot, frames.nbytes)
            system_shared_memory.set_shared_memory_region(slot.handle, [frames])
            yield slot.name, frames.nbytes, list(frames.shape), "UINT8"
        finally:
            self._free.put(slot)

    def close(self) -> None:
        """Have the server forget the regions, and free them."""
        for slot in self._slots:
            self._release(slot)

    def _ensure_size(self, slot: _Slot, byte_size: int) -> None:
        if slot.byte_size >= byte_size:
            return
        self._release(slot)
        slot.handle = system_shared_memory.create_shared_memory_region(slot.name, f"/{slot.name}", byte_size)
        slot.byte_size = byte_size
        try:
            self._transport.register_shared_memory(slot.name, f"/{slot.name}", byte_size)
        except ServerFailedError as error:
            self._release(slot)
            raise SharedMemoryUnavailableError(
                f"the server cannot map this machine's shared memory: {error}"
            ) from error
        except ClientError:
            self._release(slot)
            raise

    def _release(self, slot: _Slot) -> None:
        if slot.handle is None:
            return
        # A server that is gone has forgotten the region already.
        with contextlib.suppress(ClientError):
            self._transport.unregister_shared_memory(slot.name)
        system_shared_memory.destroy_shared_memory_region(slot.handle)
        slot.handle, slot.byte_size = None, 0


def frame_regions(pid: int) -> list[Path]:
    """The regions of all clients in a process, as they lie in the file system."""
    return list(_FOLDER.glob(f"{_PREFIX}_{pid}_*"))


def _remove_leftovers() -> None:
    """Free the regions of processes that were killed before they could."""
    for region in _FOLDER.glob(f"{_PREFIX}_*"):
        match = re.fullmatch(rf"{_PREFIX}_(\d+)_\d+", region.name)
        if match and not Path(f"/proc/{match[1]}").exists():
            region.unlink(missing_ok=True)
