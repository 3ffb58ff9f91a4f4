"""The part of a network that is trained, behind stages that are frozen, and its running average."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from ssd_triton.config import OptimizerConfig
from ssd_triton.detector.network.ssd import SSD300, fold_batch_norms, replace_batch_norms

_MODULES_OF_STAGES = (0, 4, 5, 6, 7)
"""How many modules of the backbone the first n stages are: none, the stem, layer1, layer2, layer3."""


class FrozenStages(nn.Module):
    """The first stages of a backbone, never trained: batch norms folded, in the precision of the device."""

    def __init__(self, stages: nn.Sequential, dtype: torch.dtype) -> None:
        super().__init__()
        frozen = copy.deepcopy(stages).eval()
        fold_batch_norms(frozen)
        self.stages = frozen.requires_grad_(requires_grad=False).to(dtype)
        self.dtype = dtype

    def forward(self, images: Tensor) -> Tensor:
        """FP32 [N, 3, 300, 300] -> features in the stages' own precision."""
        # torch.no_grad, and not inference_mode: what follows is trained on these features.
        with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
            features: Tensor = self.stages(images.to(self.dtype))
            return features


def freeze(network: SSD300, stages: int, dtype: torch.dtype, dropout: float) -> SSD300:
    """Freeze the first stages of a network's backbone in place.

    Args:
        network: Stays whole, for snapshots and evaluation.
        stages: 0 none, 1 the stem, 2 layer1 too, 3 layer2 too, 4 the whole backbone.
        dtype: Precision of the frozen stages.
        dropout: Fraction of the backbone's feature maps that a training step leaves out.

    Returns:
        A network that shares the trained layers of the first one, and computes the frozen stages faster.
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
    """A convolution and the batch norm after it, whose statistics stay as they are; their parameters are trained.

    It is one convolution with scaled weights: on a GPU, PyTorch takes nearly half of a training step for batch norms in
    evaluation mode, whose gradients leave channels-last order.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
        """Share the parameters of both.

        Raises:
            ValueError: The norm has no statistics or no parameters, or the convolution has a bias or another padding
                than zeros.
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
        made = self.convolution
        return F.conv2d(x, weight, bias, made.stride, made.padding, made.dilation, made.groups)


def freeze_norms(network: SSD300) -> SSD300:
    """The same network with the same parameters, in which no batch norm gathers statistics."""
    shared = {id(one): one for one in (*network.parameters(), *network.buffers())}
    # Only the modules are copied: the network itself is to keep its batch norms.
    frozen = copy.deepcopy(network, shared)
    replace_batch_norms(frozen, FrozenNormConvolution)
    return frozen


def make_optimizer(network: SSD300, settings: OptimizerConfig) -> torch.optim.AdamW:
    """AdamW with a smaller rate for the backbone than for new layers, and without decay of norms and biases."""
    groups: dict[tuple[bool, bool], list[Tensor]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            is_backbone = name.startswith("feature_extractor.")
            groups.setdefault((is_backbone, parameter.ndim > 1), []).append(parameter)
    return torch.optim.AdamW(
        [
            {
                "params": parameters,
                "lr": (rate := settings.backbone_lr if is_backbone else settings.head_lr),
                "peak_lr": rate,
                "weight_decay": settings.weight_decay if decays else 0.0,
            }
            for (is_backbone, decays), parameters in groups.items()
        ],
        fused=True,
    )


class RunningAverage:
    """The exponential moving average of a network's parameters and statistics, which begins with those it has now.

    With a warm-up, what it began with counts less long: the decay after n updates is min(decay, (1 + n) / (10 + n)), as
    TensorFlow's ``ExponentialMovingAverage`` has it.
    """

    def __init__(self, network: SSD300, decay: float, *, warmup: bool) -> None:
        self.network = copy.deepcopy(network).eval().requires_grad_(requires_grad=False)
        self._decay, self._warmup = decay, warmup
        self._averages, self._values = (_floating(one) for one in (self.network, network))

    def update(self, updates: int) -> None:
        """Take in the network as it is now, after so many updates before."""
        decay = min(self._decay, (1 + updates) / (10 + updates)) if self._warmup else self._decay
        with torch.no_grad():
            get_ema_multi_avg_fn(decay)(self._averages, self._values, updates)  # type: ignore[no-untyped-call]


def _floating(network: SSD300) -> list[Tensor]:
    return [value for value in network.state_dict(keep_vars=True).values() if value.is_floating_point()]
