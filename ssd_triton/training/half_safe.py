"""Batch norms whose variance FP16 cannot hold: the same function in numbers that it can.

ImageNet's ResNet-50 has a running_var of 83,615 in its stem, above FP16's 65,504: cast to FP16 it is infinite, and its
channel silently dead.
"""

from __future__ import annotations

from itertools import pairwise
from math import log
from typing import NamedTuple

import torch
from torch import Tensor, nn

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
    for pair in convolutions_with_norms(network):
        if pair.norm.running_var is None:
            continue
        large = pair.norm.running_var > LARGEST_FP16 / _SCALE
        divide_channels(pair, torch.where(large, _SCALE, 1.0))
        changed += int(large.sum())
    return changed


def match_scales(network: nn.Module, other: nn.Module) -> int:
    """Rescale, in place, every channel of a network that :func:`make_half_safe` has rescaled in one of both only.

    Between the two forms of a channel, which are the same function, lies none that is: before weights are averaged,
    their channels must be of the same form.

    Args:
        network: Is changed, not in what it computes.
        other: Of the same layers; stays as it is.

    Returns:
        How many channels were rescaled.
    """
    changed = 0
    pairs = zip(convolutions_with_norms(network), convolutions_with_norms(other), strict=True)
    for own, wanted in pairs:
        if own.norm.running_var is None or wanted.norm.running_var is None:
            continue
        # Variances differ a little between trainings: half of what was rescaled at once.
        large = torch.maximum(own.norm.running_var, wanted.norm.running_var) > LARGEST_FP16 / _SCALE / 2
        sizes = [pair.convolution.weight.detach().flatten(1).norm(dim=1) for pair in (own, wanted)]
        # Training changes the size of a channel's weights by much less than the root of the scale.
        power = torch.round(torch.log(sizes[0] / sizes[1]) / log(_SCALE))
        power = torch.where(large & torch.isfinite(power), power, 0.0)
        divide_channels(own, _SCALE**power)
        changed += int((power != 0).sum())
    return changed


def divide_channels(pair: ConvolutionAndNorm, scale: Tensor) -> None:
    """Divide a convolution's output channels, in place, and correct the norm after it so that its output stays.

    Args:
        pair: With a norm that keeps running statistics.
        scale: FP32 [C]; where it is 1 nothing changes.
    """
    convolution, norm = pair
    if norm.running_var is None or norm.running_mean is None:
        return
    with torch.no_grad():
        convolution.weight.div_(scale.view(-1, 1, 1, 1))
        if convolution.bias is not None:
            convolution.bias.div_(scale)
        norm.running_mean.div_(scale)
        rescaled = (norm.running_var + norm.eps) / scale**2 - norm.eps
        norm.running_var.copy_(torch.where(scale == 1, norm.running_var, rescaled))


def convolutions_with_norms(network: nn.Module) -> list[ConvolutionAndNorm]:
    """Every convolution that a batch norm follows, in the order of the modules."""
    pairs = []
    for parent in network.modules():
        children = list(parent.children())
        for before, after in pairwise(children):
            if isinstance(before, nn.Conv2d) and isinstance(after, nn.BatchNorm2d):
                pairs.append(ConvolutionAndNorm(before, after))
    return pairs
