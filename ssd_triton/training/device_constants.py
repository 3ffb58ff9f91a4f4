"""Constant tensors, cached on each device: copying them in each step would make the host wait for the device."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from ssd_triton.detector.network.boxes import default_boxes_cxcywh
from ssd_triton.detector.network.ssd import IMAGENET_MEAN_RGB, IMAGENET_STD_RGB

WHOLE = (0.0, 0.0, 1.0, 1.0)
"""A whole image: left, top, right and bottom, as fractions of it."""
Nested = tuple[float, ...] | tuple[tuple[float, ...], ...]


@cache
def constant(values: Nested, device: torch.device) -> Tensor:
    """Return numbers as an FP32 tensor on a device; never change it in place."""
    return torch.tensor(values, dtype=torch.float32, device=device)


def mean_rgb(device: torch.device) -> Tensor:
    """ImageNet's mean of pixels in [0, 1], FP32 [1, 3, 1, 1]."""
    return constant(IMAGENET_MEAN_RGB, device).view(1, 3, 1, 1)


def std_rgb(device: torch.device) -> Tensor:
    """ImageNet's standard deviation of pixels in [0, 1], FP32 [1, 3, 1, 1]."""
    return constant(IMAGENET_STD_RGB, device).view(1, 3, 1, 1)


@cache
def default_boxes(device: torch.device) -> Tensor:
    """Default boxes (centre, size), FP32 [8732, 4]; :func:`ssd_triton.detector.network.boxes.default_boxes_cxcywh`."""
    return torch.from_numpy(default_boxes_cxcywh()).to(device)
