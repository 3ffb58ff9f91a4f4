"""The network's part of a training step as CUDA graphs.

Launching its thousand kernels one by one takes the host longer than a fast GPU takes to run them.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from ssd_triton.detector.network.boxes import IMAGE_SIZE_PX
from ssd_triton.detector.network.ssd import SSD300


def graphed(network: SSD300, batch: int, dtype: torch.dtype, device: torch.device) -> SSD300:
    """A network whose forward and backward pass are two graphs, which share its parameters.

    The passes that are run for the recording leave the network's statistics and the random numbers as they were.

    Args:
        network: In training mode, on the device; stays as it is, and takes other batches.
        batch: Images that the result takes.
        dtype: Of automatic mixed precision.
        device: A CUDA device.

    Raises:
        torch.cuda.OutOfMemoryError: The batch is too large.
    """
    # Recording replaces a module's forward: a shallow copy has the same layers, and a forward of its own.
    recorded = copy.copy(network)
    shape = (batch, 3, IMAGE_SIZE_PX, IMAGE_SIZE_PX)
    images = torch.full(shape, 0.5, device=device).contiguous(memory_format=torch.channels_last)
    # Recorded on a stream of its own, which is meant and cost nothing that could be measured.
    torch.autograd.graph.set_warn_on_accumulate_grad_stream_mismatch(enabled=False)
    # Casts that autocast keeps for its next use would be made while recording, and not again when replayed.
    with (
        _buffers_kept(network),
        torch.random.fork_rng(devices=[device]),
        torch.autocast(device.type, dtype, cache_enabled=False),
    ):
        made: SSD300 = torch.cuda.make_graphed_callables(recorded, (images,))  # type: ignore[assignment]
    return made


@contextmanager
def _buffers_kept(network: SSD300) -> Iterator[None]:
    """What batch norms gather within is forgotten."""
    before: list[Tensor] = [one.clone() for one in network.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in zip(network.buffers(), before, strict=True):
                buffer.copy_(value)
