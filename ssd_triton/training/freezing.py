"""Frozen parts of a network in training: the first stages of its backbone, and the statistics of its batch norms."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssd_triton.detector.network.ssd import SSD300, fold_batch_norms, replace_batch_norms

_MODULES_OF_STAGES = (0, 4, 5, 6, 7)
"""Number of backbone modules in the first n stages: none, the stem, layer1, layer2, layer3."""


class FrozenStages(nn.Module):
    """The first stages of a backbone, not trained: with folded batch norms, in a precision that suits the device."""

    def __init__(self, stages: nn.Sequential, dtype: torch.dtype) -> None:
        super().__init__()
        frozen = copy.deepcopy(stages).eval()
        fold_batch_norms(frozen)
        self.stages = frozen.requires_grad_(requires_grad=False).to(dtype)
        self.dtype = dtype

    def forward(self, images: Tensor) -> Tensor:
        """FP32 [N, 3, 300, 300] -> features in the stages' own precision."""
        # Not inference_mode: the later stages are trained on these features.
        with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
            features: Tensor = self.stages(images.to(self.dtype))
            return features


def freeze_stages(network: SSD300, stages: int, dtype: torch.dtype, dropout: float) -> SSD300:
    """Freeze the first stages of a network's backbone in place.

    Args:
        network: Keeps all its layers, which snapshots and evaluation need.
        stages: 0 none, 1 the stem, 2 also layer1, 3 also layer2, 4 the whole backbone.
        dtype: Precision of the frozen stages.
        dropout: Fraction of the backbone's feature maps that each training step leaves out.

    Returns:
        A network for training: it shares the trained layers, and computes the frozen stages faster.
    """
    layers = list(network.feature_extractor.feature_extractor)
    frozen = nn.Sequential(*layers[: _MODULES_OF_STAGES[stages]])
    frozen.requires_grad_(requires_grad=False)
    with torch.device("meta"):
        trained = SSD300("resnet18", num_labels=2)
    trained.num_labels = network.num_labels
    trained.additional_blocks, trained.loc, trained.conf = network.additional_blocks, network.loc, network.conf
    before = [FrozenStages(frozen, dtype)] if stages else []
    after = [nn.Dropout2d(dropout)] if dropout else []
    trained.feature_extractor.feature_extractor = nn.Sequential(*before, *layers[len(frozen) :], *after)
    return trained.train()


class FrozenNormConvolution(nn.Module):
    """A convolution and its batch norm, with fixed statistics and trained parameters.

    It runs as one convolution with scaled weights. On a GPU, batch norms in evaluation mode take nearly half of a
    training step, since their gradients leave channels-last order.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
        """Share the parameters of both modules.

        Raises:
            ValueError: The norm lacks statistics or parameters, or the convolution has a bias or does not pad with
                zeros.
        """
        super().__init__()
        if norm.running_mean is None or norm.running_var is None or not norm.affine:
            raise ValueError("got a batch norm without statistics or parameters, expected one with both")
        if convolution.bias is not None or convolution.padding_mode != "zeros":
            raise ValueError("got a convolution with a bias or unusual padding, expected none before a batch norm")
        self.convolution, self.norm = convolution, norm
        self.register_buffer("mean", norm.running_mean)
        self.register_buffer("std", (norm.running_var + norm.eps).sqrt())

    def forward(self, x: Tensor) -> Tensor:
        """[N, in, H, W] -> [N, out, H, W]."""
        scale = self.norm.weight / self.std
        weight = self.convolution.weight * scale[:, None, None, None]
        bias = self.norm.bias - self.mean * scale
        own = self.convolution
        return F.conv2d(x, weight, bias, own.stride, own.padding, own.dilation, own.groups)


def freeze_norms(network: SSD300) -> SSD300:
    """Make a network with the same parameters whose batch norms keep their statistics."""
    shared = {id(one): one for one in (*network.parameters(), *network.buffers())}
    # Copies the modules only: the first network keeps its batch norms.
    frozen = copy.deepcopy(network, shared)
    replace_batch_norms(frozen, FrozenNormConvolution)
    return frozen
