"""Errors for too little memory: of a GPU for a batch or for the images, or of the machine for the images."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from ssd_triton.training.errors import TrainingError

_MEASURED_BATCHES = (2, 4, 8)
_USABLE = 0.95
"""Usable fraction of the free memory; the rest is lost to fragmentation."""


def check_images_fit(count: int, side_px: int, free_bytes: int, name: str) -> None:
    """Refuse a dataset that does not fit into the machine's memory, before it is read.

    Args:
        count: Number of images.
        side_px: Side of the square that each image is resized to.
        free_bytes: Free memory.
        name: Name of the dataset, for the message.

    Raises:
        TrainingError: The images may need more than the free memory: once when they are read and, without a GPU, again
            in the tensor of all sets.
    """
    needed = 2 * count * 3 * side_px**2
    if needed > free_bytes:
        raise TrainingError(
            f"{name}: {count:,} images of {side_px} px take {needed / 2**30:.1f} GiB of memory, "
            f"{free_bytes / 2**30:.1f} GiB are free; lower training.source_px, free memory, or give fewer images"
        )


def images_too_large(pixels_bytes: int, device: torch.device) -> TrainingError:
    """The error for images that did not fit on a GPU."""
    free = torch.cuda.mem_get_info(device)[0]
    return TrainingError(
        f"out of memory: the training images take {pixels_bytes / 2**30:.1f} GiB, {free / 2**30:.1f} GiB are free on "
        f"{torch.cuda.get_device_name(device)}; lower training.source_px, or give fewer images"
    )


def largest_batch(used_bytes: Mapping[int, int], free_bytes: int) -> int:
    """Estimate the largest batch that fits, by linear extrapolation from the smallest and the largest measured batch.

    Args:
        used_bytes: Memory by batch size, for two or more sizes, without the memory that is always allocated.
        free_bytes: Free memory for a batch.

    Returns:
        0 if nothing fits.
    """
    small, large = min(used_bytes), max(used_bytes)
    per_image = max((used_bytes[large] - used_bytes[small]) / (large - small), 1)
    fixed = max(used_bytes[small] - small * per_image, 0)
    return max(int((free_bytes * _USABLE - fixed) / per_image), 0)


def batch_too_large(batch: int, run: Callable[[int], object], device: torch.device) -> TrainingError:
    """The error for a batch that did not fit; it names the largest batch that would.

    Args:
        batch: The size that did not fit.
        run: Runs forward and backward pass on a batch of the given size.
        device: The GPU.
    """
    used: dict[int, int] = {}
    torch.cuda.empty_cache()
    allocated = torch.cuda.memory_allocated(device)
    free = torch.cuda.mem_get_info(device)[0]
    try:
        for size in (size for size in _MEASURED_BATCHES if size < batch):
            torch.cuda.reset_peak_memory_stats(device)
            run(size)
            used[size] = torch.cuda.max_memory_allocated(device) - allocated
    except torch.cuda.OutOfMemoryError:
        torch.cuda.empty_cache()
    return refusal(batch, used, free, torch.cuda.get_device_name(device))


def refusal(batch: int, used_bytes: Mapping[int, int], free_bytes: int, gpu: str) -> TrainingError:
    """The error of :func:`batch_too_large`, by measurements as :func:`largest_batch` takes them."""
    got = f"out of memory with a batch of {batch} images on {gpu}, {free_bytes / 2**30:.1f} GiB free for it"
    if len(used_bytes) < 2:
        return TrainingError(f"{got}: not even a few images fit; free memory there, or give --device cpu")
    fits = min(largest_batch(used_bytes, free_bytes), batch - 1)
    if fits < _MEASURED_BATCHES[0]:
        return TrainingError(
            f"{got}: not even {_MEASURED_BATCHES[0]} images would fit; free memory there, or give --device cpu"
        )
    return TrainingError(f"{got}: {fits} would fit, judging by smaller batches; give --batch {fits}")
