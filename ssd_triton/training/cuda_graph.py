"""The network's forward and backward pass as CUDA graphs.

Launching its thousand kernels one by one takes longer than running them on a fast GPU.
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
    """Make a network with the same parameters whose forward and backward pass are two graphs.

    Recording changes neither the batch norms' statistics nor the state of the random generators.

    Args:
        network: In training mode, on the device; it is not changed, and can still run other batch sizes.
        batch: Batch size of the result.
        dtype: Type of automatic mixed precision.
        device: A CUDA device.

    Raises:
        torch.cuda.OutOfMemoryError: The batch is too large.
    """
    # Recording replaces a module's forward method; a shallow copy has the same layers, but its own forward method.
    recorded = copy.copy(network)
    shape = (batch, 3, IMAGE_SIZE_PX, IMAGE_SIZE_PX)
    images = torch.full(shape, 0.5, device=device).contiguous(memory_format=torch.channels_last)
    # PyTorch would warn that recording uses another stream; this is intended and has no measurable cost.
    torch.autograd.graph.set_warn_on_accumulate_grad_stream_mismatch(enabled=False)
    # Casts that autocast caches would be recorded once, and not repeated in each replay.
    with (
        _buffers_kept(network),
        torch.random.fork_rng(devices=[device]),
        torch.autocast(device.type, dtype, cache_enabled=False),
    ):
        made: SSD300 = torch.cuda.make_graphed_callables(recorded, (images,))  # type: ignore[assignment]
    return made


@contextmanager
def _buffers_kept(network: SSD300) -> Iterator[None]:
    """Restore the buffers (the statistics of batch norms) at the end."""
    before: list[Tensor] = [one.clone() for one in network.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in zip(network.buffers(), before, strict=True):
                buffer.copy_(value)
