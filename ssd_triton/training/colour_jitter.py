"""Colour jitter: brightness, contrast, saturation and hue as one matrix for each image, then noise."""

from __future__ import annotations

from math import pi, sqrt

import torch
from torch import Tensor

from ssd_triton.config import AugmentationConfig
from ssd_triton.training.device_constants import constant, mean_rgb

_LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in brightness: ITU-R BT.601."""


def jitter_colours(centered: Tensor, settings: AugmentationConfig, generator: torch.Generator) -> Tensor:
    """Change the colours of images FP32 [N, 3, H, W]. Input and output are in [0, 1] minus ImageNet's mean."""
    count, device = len(centered), centered.device

    def around(width: float) -> Tensor:
        return (torch.rand(count, 1, 1, device=device, generator=generator) * 2 - 1) * width

    saturation = 1 + around(settings.saturation)
    grey = torch.rand(count, 1, 1, device=device, generator=generator) < settings.grey_fraction
    saturation = torch.where(grey, torch.zeros_like(saturation), saturation)
    luma = constant(_LUMA, device).expand(3, 3)
    identity = torch.eye(3, device=device)
    matrix = (luma + saturation * (identity - luma)) @ _hue_rotation(around(settings.hue_deg) * pi / 180)
    matrix = matrix * (1 + around(settings.contrast))
    changed = torch.einsum("nij,njhw->nihw", matrix, centered) + around(settings.brightness)[..., None]
    noise = torch.rand(count, 1, 1, 1, device=device, generator=generator) * settings.noise
    changed = changed + noise * torch.randn(centered.shape, device=device, generator=generator)
    mean = mean_rgb(device)
    return (changed + mean).clamp(0, 1) - mean


def _hue_rotation(angle: Tensor) -> Tensor:
    """Rotations about the grey axis, [N, 3, 3], by angles in radians, [N, 1, 1] (Rodrigues' formula)."""
    device = angle.device
    third = torch.full((3, 3), 1 / 3, device=device)
    cross = constant(((0.0, -1.0, 1.0), (1.0, 0.0, -1.0), (-1.0, 1.0, 0.0)), device) / sqrt(3)
    cosine, sine = angle.cos(), angle.sin()
    return cosine * torch.eye(3, device=device) + (1 - cosine) * third + sine * cross
