"""Random erasing: a rectangle is filled with the mean colour, so that no single part of an object decides its class.

Source: Zhong et al., "Random Erasing Data Augmentation" (2017).
"""

from __future__ import annotations

import torch
from torch import Tensor

from ssd_triton.config import AugmentationConfig
from ssd_triton.training.examples import IGNORED

_HIDDEN_FRACTION = 0.6
"""Erased fraction of an object above which it is ignored, since it can hardly be recognised."""


def erase(
    centered: Tensor, boxes_xyxy: Tensor, labels: Tensor, settings: AugmentationConfig, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Erase a rectangle of some images.

    Args:
        centered: FP32 [N, 3, H, W], pixels minus the mean.
        boxes_xyxy: FP32 [N, G, 4], fractions of the images.
        labels: INT64 [N, G].
        settings: Fraction of the images, and size of the rectangles.
        generator: Generator on the images' device.

    Returns:
        Images, and labels with hidden objects ignored.
    """
    count, device = len(centered), centered.device
    chosen = torch.rand(count, 1, device=device, generator=generator) < settings.erase_fraction
    sides = torch.rand(count, 2, device=device, generator=generator) * settings.erase_max_side * chosen
    start = torch.rand(count, 2, device=device, generator=generator) * (1 - sides)
    end = start + sides
    inside_x, inside_y = (
        (places >= start[:, axis, None]) & (places < end[:, axis, None])
        for axis, places in enumerate(_centers(size, device) for size in (centered.shape[3], centered.shape[2]))
    )
    erased = inside_x[:, None, None, :] & inside_y[:, None, :, None]
    common = torch.minimum(boxes_xyxy[..., 2:], end[:, None]) - torch.maximum(boxes_xyxy[..., :2], start[:, None])
    area = (boxes_xyxy[..., 2:] - boxes_xyxy[..., :2]).prod(dim=-1)
    hidden = (labels > 0) & (common.clamp(min=0).prod(dim=-1) > _HIDDEN_FRACTION * area)
    return torch.where(erased, 0.0, centered), torch.where(hidden, IGNORED, labels)


def _centers(count: int, device: torch.device) -> Tensor:
    """Centres of the pixels along one side, as fractions of it."""
    return (torch.arange(count, device=device, dtype=torch.float32) + 0.5) / count
