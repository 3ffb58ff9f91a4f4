"""Regions of shared memory without a server: none is left behind, and those of living processes stay."""

from __future__ import annotations

import fcntl
import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ssd_triton.client import ServerUnreachableError
from ssd_triton.client.shared_memory import FramePool, frame_regions
from ssd_triton.client.transport import make_transport
from tests.conftest import free_url

FRAMES = np.zeros((1, 4, 6, 3), np.uint8)


def pool() -> FramePool:
    return FramePool(make_transport("grpc", free_url(), timeout_s=1), slots=1)


@pytest.fixture
def region_of_nobody() -> Iterator[Path]:
    """A region whose process number is free, as after a kill, or as seen from another container."""
    numbers = itertools.count(int(Path("/proc/sys/kernel/pid_max").read_text()) + os.getpid())
    path = next(path for path in (Path(f"/dev/shm/ssd_triton_frame_{n}_0") for n in numbers) if not path.exists())
    path.write_bytes(b"pixels")
    yield path
    path.unlink(missing_ok=True)


def test_nothing_is_left_when_nobody_answers() -> None:
    before = frame_regions(os.getpid())
    frames = pool()
    with pytest.raises(ServerUnreachableError), frames.place(FRAMES):
        pass
    assert frame_regions(os.getpid()) == before


def test_a_dead_process_s_region_is_freed(region_of_nobody: Path) -> None:
    pool()
    assert not region_of_nobody.exists()


def test_a_locked_region_stays(region_of_nobody: Path) -> None:
    with region_of_nobody.open("rb+") as region:
        fcntl.flock(region, fcntl.LOCK_EX)
        pool()
        assert region_of_nobody.exists()


def test_a_region_is_as_large_as_its_frames_and_holds_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server maps the region while it is registered: what it would see is in the file of that name."""
    transport = make_transport("grpc", free_url(), timeout_s=1)
    seen: list[Path] = []
    monkeypatch.setattr(
        transport, "register_shared_memory", lambda name, key, size: seen.append(Path(f"/dev/shm{key}"))
    )
    frames = FramePool(transport, slots=1)
    for value, shape in ((7, (1, 4, 6, 3)), (8, (1, 2, 3, 3)), (9, (1, 8, 6, 3))):
        pixels = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape) + np.uint8(value)
        with frames.place(pixels[:, ::-1]) as (_, byte_size, placed_shape, _):
            assert (byte_size, placed_shape) == (pixels.nbytes, list(shape))
            assert seen[-1].read_bytes()[:byte_size] == np.ascontiguousarray(pixels[:, ::-1]).tobytes()
    assert len(seen) == 2  # the second frame fitted into the region of the first
    frames.close()
    assert not seen[-1].exists()
