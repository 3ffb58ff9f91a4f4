"""The device that a command line names, and what runs on it."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ssd_triton.common.errors import UserError

Launch = Callable[[int], object]
"""Starts one run; the argument chooses among the input sets, so that caches see changing data."""


def choose_device(name: str) -> torch.device:
    """``auto`` takes a GPU where there is one.

    Raises:
        UserError: There is no such device here.
    """
    try:
        device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)
    except RuntimeError as error:
        raise UserError(f"got the device '{name}', expected auto, cpu, cuda or cuda:N") from error
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"got the device '{name}', expected auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise UserError(f"got the device '{name}', but PyTorch sees {count} GPUs: use --device cpu")
    # Generators and tensors name their device with its index: one without it would count as another.
    return torch.device("cuda", device.index or 0) if device.type == "cuda" else device
