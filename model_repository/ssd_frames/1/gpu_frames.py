"""Frames in a GPU's memory, such as a client's CUDA shared memory: resized there, in the instance. Needs PyTorch.

Only the network's input comes to the host: 300 x 300 pixels of each frame. An instance that gets no such frames does
not load PyTorch.
"""

import sys
from functools import cache
from pathlib import Path

_ENGINE = Path(__file__).resolve().parents[2] / "ssd" / "1"
"""The engine's resizing and its kernels are used here, too."""


@cache
def _torch():
    import torch

    torch.set_num_threads(1)
    sys.path.append(str(_ENGINE))
    return torch


@cache
def _resizer(device):
    from images import Resizer

    return Resizer(device)


def frames_of(tensor):
    """UINT8 [N, H, W, 3] of Triton's on a GPU -> N tensors of PyTorch's, [H, W, 3], in the same memory."""
    return list(_torch().from_dlpack(tensor.to_dlpack()))


def resized(frames):
    """Resize frames that are on one GPU there.

    Args:
        frames: UINT8 [H, W, 3] RGB each, one or more; sizes may differ.

    Returns:
        UINT8 [300, 300, 3] of each, on the host; None of each if the GPU's memory is full.
    """
    torch, device = _torch(), frames[0].device
    from device_memory import is_out_of_memory

    try:
        with torch.inference_mode(), torch.cuda.device(device):
            pixels = torch.empty([len(frames), 300, 300, 3], dtype=torch.uint8, device=device)
            sources = [(one.data_ptr(), one.stride(0), one.shape[1], one.shape[0]) for one in frames]
            _resizer(device)(sources, range(len(frames)), pixels)
            return list(pixels.cpu().numpy())
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return [None] * len(frames)
