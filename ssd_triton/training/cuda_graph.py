"""The network's forward and backward pass as CUDA graphs.

Launching its thousand kernels one by one takes longer than a fast GPU takes to run them.
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
    """A network with the same parameters whose forward and backward pass are two graphs.

    Recording changes neither the network's statistics nor the random numbers.

    Args:
        network: In training mode, on the device; unchanged, and still good for other batch sizes.
        batch: Number of images that the result takes.
        dtype: Type of automatic mixed precision.
        device: A CUDA device.

    Raises:
        torch.cuda.OutOfMemoryError: The batch is too large.
    """
    # Recording replaces a module's forward: a shallow copy has the same layers and its own forward.
    recorded = copy.copy(network)
    shape = (batch, 3, IMAGE_SIZE_PX, IMAGE_SIZE_PX)
    images = torch.full(shape, 0.5, device=device).contiguous(memory_format=torch.channels_last)
    # Warns that it is recorded on its own stream: intended, and without measurable cost.
    torch.autograd.graph.set_warn_on_accumulate_grad_stream_mismatch(enabled=False)
    # Casts cached by autocast would be recorded once, and not repeated at each replay.
    with (
        _buffers_kept(network),
        torch.random.fork_rng(devices=[device]),
        torch.autocast(device.type, dtype, cache_enabled=False),
    ):
        made: SSD300 = torch.cuda.make_graphed_callables(recorded, (images,))  # type: ignore[assignment]
    return made


@contextmanager
def _buffers_kept(network: SSD300) -> Iterator[None]:
    """Restore the buffers at the end: the statistics of batch norms."""
    before: list[Tensor] = [one.clone() for one in network.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in zip(network.buffers(), before, strict=True):
                buffer.copy_(value)
