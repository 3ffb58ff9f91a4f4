"""Gathers the requests of a batch into one tensor on a model's device. Needs PyTorch."""

import torch


def gather(tensors, device):
    """Concatenate an input of all requests, on whichever device each part is.

    Args:
        tensors: One tensor for each request, with the batch as first axis.
        device: The device of the result.

    Returns:
        A tensor on ``device``; the copy to it may still be in flight on the current stream.
    """
    if device.type == "cuda" and not any(tensor.is_cuda for tensor in tensors):
        # One transfer from page-locked memory is faster than a transfer from pageable memory for each request.
        size = [sum(len(tensor) for tensor in tensors), *tensors[0].shape[1:]]
        locked = torch.empty(size, dtype=tensors[0].dtype, pin_memory=True)
        return torch.cat(tensors, out=locked).to(device, non_blocking=True)
    there = [tensor.to(device, non_blocking=True) for tensor in tensors]
    return there[0] if len(there) == 1 else torch.cat(there)
