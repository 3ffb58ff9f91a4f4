"""Choice of the device that a command line names."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ssd_triton.common.errors import UserError

Launch = Callable[[int], object]
"""Starts one run. The argument is the number of the run; it selects one of several input sets, so that caches see
changing data."""


def choose_device(name: str) -> torch.device:
    """Return the device of that name; ``auto`` is the first GPU, or the CPU without one.

    Raises:
        UserError: The name is unknown, or this machine has no such device.
    """
    try:
        device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)
    except RuntimeError as error:
        raise UserError(f"got the device '{name}', expected auto, cpu, cuda or cuda:N") from error
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"got the device '{name}', expected auto, cpu, cuda or cuda:N")
    if device.type == "cpu":
        return device
    index, count = device.index or 0, torch.cuda.device_count()
    if index >= count:
        raise UserError(f"got the device '{name}', but PyTorch sees {count} GPUs: use --device cpu")
    # Tensors and generators report their device with an index; without one, the same GPU would compare unequal.
    return torch.device("cuda", index)
