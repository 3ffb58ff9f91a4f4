"""Which errors mean that a GPU's memory is full: work in smaller parts, or on the host, may succeed. Needs nothing."""

import re

OUT_OF_MEMORY = re.compile(r"out.of.memory|alloc|CUDA Runtime failure: '#2'", re.IGNORECASE)
"""What errors of PyTorch, CUDA, cuDNN, nvJPEG and nvImageCodec say when a GPU's memory is full."""


def is_out_of_memory(error):
    """Whether an error means that the GPU's memory is full, and no more; others are fatal."""
    return OUT_OF_MEMORY.search(str(error)) is not None
