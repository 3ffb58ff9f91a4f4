"""Rescaling of batch norms whose variance exceeds the range of FP16, without a change of the outputs.

ImageNet's ResNet-50 has a running_var of 83,615 in its stem, above FP16's 65,504: in FP16 it becomes infinite, and the
channel's output becomes constant without any error.
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
    """A convolution and the batch norm after it."""

    convolution: nn.Conv2d
    norm: nn.BatchNorm2d


def rescale_for_fp16(network: nn.Module) -> int:
    """Rescale, in place, every channel whose running variance is near the limit of FP16.

    The output of a batch norm stays the same when its input and mean are divided by s, and its variance v is replaced
    by (v + eps) / s² - eps. The new variance is positive for the large variances that are changed here.

    Returns:
        Number of rescaled channels.
    """
    changed = 0
    for pair in convolutions_with_norms(network):
        if pair.norm.running_var is None:
            continue
        large = pair.norm.running_var > LARGEST_FP16 / _SCALE
        _divide_channels(pair, torch.where(large, _SCALE, 1.0))
        changed += int(large.sum())
    return changed


def match_scales(network: nn.Module, other: nn.Module) -> int:
    """Rescale, in place, every channel that :func:`rescale_for_fp16` has rescaled in only one of two networks.

    Averaging a channel with a rescaled one gives a different function. Before two networks' weights are averaged, their
    channels must therefore have the same scales.

    Args:
        network: Changed in place; its outputs stay the same.
        other: A network with the same layers; unchanged.

    Returns:
        Number of rescaled channels.
    """
    changed = 0
    pairs = zip(convolutions_with_norms(network), convolutions_with_norms(other), strict=True)
    for own, wanted in pairs:
        if own.norm.running_var is None or wanted.norm.running_var is None:
            continue
        # Half the limit of the rescaling, since variances differ a little between trainings.
        large = torch.maximum(own.norm.running_var, wanted.norm.running_var) > LARGEST_FP16 / _SCALE / 2
        sizes = [pair.convolution.weight.detach().flatten(1).norm(dim=1) for pair in (own, wanted)]
        # Training changes the norm of a channel's weights by much less than the square root of the scale.
        power = torch.round(torch.log(sizes[0] / sizes[1]) / log(_SCALE))
        power = torch.where(large & torch.isfinite(power), power, 0.0)
        _divide_channels(own, _SCALE**power)
        changed += int((power != 0).sum())
    return changed


def _divide_channels(pair: ConvolutionAndNorm, scale: Tensor) -> None:
    """Divide a convolution's output channels, in place, and adapt the norm after it so that its output is unchanged.

    Args:
        pair: Its norm keeps running statistics.
        scale: FP32 [C]; 1 changes nothing.
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
