"""Batch norms whose variance FP16 cannot hold: the same function in numbers that it can.

ImageNet's ResNet-50 has a running_var of 83,615 in its stem, above FP16's 65,504: cast to FP16 it is infinite, and its
channel silently dead.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import nn

LARGEST_FP16 = 65504.0
_SCALE = 16.0
"""A power of two, so that scaling a weight is exact in every floating-point format."""


class ConvolutionAndNorm(NamedTuple):
    """A convolution, and the batch norm after it."""

    convolution: nn.Conv2d
    norm: nn.BatchNorm2d


def make_half_safe(network: nn.Module) -> int:
    """Rescale, in place, every channel whose running variance FP16 cannot hold with some reserve.

    A batch norm gives the same output when its input and mean are divided by s, and its variance v replaced by
    (v + eps) / s² - eps. Only channels of great variance are changed, for which that is positive.

    Returns:
        How many channels were rescaled.
    """
    changed = 0
    with torch.no_grad():
        for convolution, norm in _pairs(network):
            if norm.running_var is None or norm.running_mean is None:
                continue
            large = norm.running_var > LARGEST_FP16 / _SCALE
            scale = torch.where(large, _SCALE, 1.0)
            convolution.weight.div_(scale.view(-1, 1, 1, 1))
            if convolution.bias is not None:
                convolution.bias.div_(scale)
            norm.running_mean.div_(scale)
            rescaled = (norm.running_var + norm.eps) / scale**2 - norm.eps
            norm.running_var.copy_(torch.where(large, rescaled, norm.running_var))
            changed += int(large.sum())
    return changed


def _pairs(network: nn.Module) -> list[ConvolutionAndNorm]:
    pairs = []
    for parent in network.modules():
        children = list(parent.children())
        for before, after in pairwise(children):
            if isinstance(before, nn.Conv2d) and isinstance(after, nn.BatchNorm2d):
                pairs.append(ConvolutionAndNorm(before, after))
    return pairs
