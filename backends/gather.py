"""The requests of a batch as one tensor on the device of a model. Needs PyTorch."""

import torch


def gather(tensors, device):
    """Concatenate the requests' parts of an input, wherever each of them lies.

    Args:
        tensors: One a request, the batch first.
        device: Where the result is to be.

    Returns:
        A tensor on ``device``; what copies it there may still be under way on the current stream.
    """
    if device.type == "cuda" and not any(tensor.is_cuda for tensor in tensors):
        # One transfer out of page-locked memory takes less than one out of ordinary memory for each request.
        size = [sum(len(tensor) for tensor in tensors), *tensors[0].shape[1:]]
        locked = torch.empty(size, dtype=tensors[0].dtype, pin_memory=True)
        return torch.cat(tensors, out=locked).to(device, non_blocking=True)
    there = [tensor.to(device, non_blocking=True) for tensor in tensors]
    return there[0] if len(there) == 1 else torch.cat(there)
