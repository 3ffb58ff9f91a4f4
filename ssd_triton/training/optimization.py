"""The optimizer, its learning rates, and the running average of the weights."""

from __future__ import annotations

import copy
from functools import partial
from math import cos, pi

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import get_ema_multi_avg_fn

from ssd_triton.config import OptimizerConfig
from ssd_triton.detector.network.ssd import SSD300


def make_optimizer(network: SSD300, settings: OptimizerConfig) -> torch.optim.AdamW:
    """Make AdamW with peak learning rates, separate for the backbone, and without weight decay for norms and biases."""
    groups: dict[tuple[bool, bool], list[Tensor]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            is_backbone = name.startswith("feature_extractor.")
            groups.setdefault((is_backbone, parameter.ndim > 1), []).append(parameter)
    return torch.optim.AdamW(
        [
            {
                "params": parameters,
                "lr": settings.backbone_lr if is_backbone else settings.head_lr,
                "weight_decay": settings.weight_decay if decays else 0.0,
            }
            for (is_backbone, decays), parameters in groups.items()
        ],
        fused=True,
    )


def make_schedule(optimizer: torch.optim.Optimizer, steps: int, warmup_steps: int) -> LambdaLR:
    """Multiply an optimizer's learning rates by :func:`rate_factor` in each step."""
    return LambdaLR(optimizer, partial(rate_factor, steps=steps, warmup_steps=warmup_steps))


def rate_factor(step: int, steps: int, warmup_steps: int) -> float:
    """The fraction of the peak learning rate in a step: a linear warm-up, then a cosine to zero.

    Source: Loshchilov and Hutter, "SGDR" (2017), without restarts; Goyal et al. (2017) for the warm-up.

    Args:
        step: Number of the step, from 0.
        steps: Length of the training.
        warmup_steps: Length of the warm-up; its last step has the peak rate.
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    return 0.5 * (1 + cos(pi * (step - warmup_steps) / max(steps - warmup_steps, 1)))


class RunningAverage:
    """The exponential moving average of a network's parameters and batch norm statistics.

    It starts with the network's current values. With a warm-up, these lose their weight faster: the decay after n
    updates is min(decay, (1 + n) / (10 + n)), as in TensorFlow's ``ExponentialMovingAverage``. PyTorch's
    ``AveragedModel`` is not used, because the host would wait in each step for the copy of its update count to the
    device.
    """

    def __init__(self, network: SSD300, decay: float, *, warmup: bool) -> None:
        self.network = copy.deepcopy(network).eval().requires_grad_(requires_grad=False)
        self._decay, self._warmup = decay, warmup
        self._averages, self._values = (_floating(one) for one in (self.network, network))

    def update(self, updates: int) -> None:
        """Add the network's current values; ``updates`` is the number of updates before this one."""
        decay = min(self._decay, (1 + updates) / (10 + updates)) if self._warmup else self._decay
        get_ema_multi_avg_fn(decay)(self._averages, self._values, updates)  # type: ignore[no-untyped-call]


def _floating(network: SSD300) -> list[Tensor]:
    return [value for value in network.state_dict(keep_vars=True).values() if value.is_floating_point()]
