"""What to say when memory is not enough: a GPU's for a batch or the images, or the machine's for the images."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from ssd_triton.training.errors import TrainingError

_MEASURED_BATCHES = (2, 4, 8)
_USABLE = 0.95
"""The rest of the free memory is lost between blocks."""


def check_images_fit(count: int, side_px: int, free_bytes: int, name: str) -> None:
    """Refuse a dataset that would not fit into the machine's memory, before it is read.

    Args:
        count: Images.
        side_px: Of the square that each is kept at.
        free_bytes: Of memory.
        name: Of the dataset, for the message.

    Raises:
        TrainingError: They take more: each once as it is read, and once among the images of all sets.
    """
    needed = 2 * count * 3 * side_px**2
    if needed > free_bytes:
        raise TrainingError(
            f"{name}: {count:,} images of {side_px} px take {needed / 2**30:.1f} GiB of memory, "
            f"{free_bytes / 2**30:.1f} GiB are free; lower training.source_px, free memory, or give fewer images"
        )


def images_too_many(pixels_bytes: int, device: torch.device) -> TrainingError:
    """The error to raise after the images did not fit on a GPU."""
    free = torch.cuda.mem_get_info(device)[0]
    return TrainingError(
        f"out of memory: the training images take {pixels_bytes / 2**30:.1f} GiB, {free / 2**30:.1f} GiB are free on "
        f"{torch.cuda.get_device_name(device)}; lower training.source_px, or give fewer images"
    )


def largest_batch(used_bytes: Mapping[int, int], free_bytes: int) -> int:
    """The batch that fits, from the memory that some small batches took: a line through the smallest and the largest.

    Args:
        used_bytes: By batch size, of at least two; how much memory each took beyond what always lies there.
        free_bytes: Beyond what always lies there.

    Returns:
        0 if nothing fits.
    """
    small, large = min(used_bytes), max(used_bytes)
    per_image = max((used_bytes[large] - used_bytes[small]) / (large - small), 1)
    fixed = max(used_bytes[small] - small * per_image, 0)
    return max(int((free_bytes * _USABLE - fixed) / per_image), 0)


def out_of_memory(batch: int, run: Callable[[int], object], device: torch.device) -> TrainingError:
    """The error to raise after a batch did not fit, with the batch that would.

    Args:
        batch: What did not fit.
        run: Does what a training step does with a batch of the given size, and keeps nothing.
        device: The GPU.
    """
    used: dict[int, int] = {}
    torch.cuda.empty_cache()
    lying = torch.cuda.memory_allocated(device)
    free = torch.cuda.mem_get_info(device)[0]
    try:
        for size in (size for size in _MEASURED_BATCHES if size < batch):
            torch.cuda.reset_peak_memory_stats(device)
            run(size)
            used[size] = torch.cuda.max_memory_allocated(device) - lying
    except torch.cuda.OutOfMemoryError:
        torch.cuda.empty_cache()
    return refusal(batch, used, free, torch.cuda.get_device_name(device))


def refusal(batch: int, used_bytes: Mapping[int, int], free_bytes: int, gpu: str) -> TrainingError:
    """See :func:`out_of_memory`."""
    got = f"out of memory with a batch of {batch} images on {gpu}, {free_bytes / 2**30:.1f} GiB free for it"
    if len(used_bytes) < 2:
        return TrainingError(f"{got}: not even a few images fit; free memory there, or give --device cpu")
    fits = min(largest_batch(used_bytes, free_bytes), batch - 1)
    if fits < _MEASURED_BATCHES[0]:
        return TrainingError(
            f"{got}: not even {_MEASURED_BATCHES[0]} images would fit; free memory there, or give --device cpu"
        )
    return TrainingError(f"{got}: {fits} would fit by the memory that smaller batches took; give --batch {fits}")
