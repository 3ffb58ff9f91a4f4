"""The multibox loss: smooth L1 of offsets and cross-entropy of classes, with hard negatives.

Source: Liu et al., "SSD: Single Shot MultiBox Detector" (2016), section 2.2. The loss is divided by the number of
positives in the whole batch, so that each object has the same weight.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ssd_triton.config import LossConfig
from ssd_triton.training.matching import Targets


class Loss(NamedTuple):
    """Both parts of the loss, FP32 scalars, with their weights, divided by the number of positives."""

    boxes: Tensor
    classes: Tensor

    @property
    def total(self) -> Tensor:
        """The sum to minimise."""
        return self.boxes + self.classes


def multibox_loss(loc: Tensor, conf: Tensor, targets: Targets, settings: LossConfig) -> Loss:
    """Compare predictions with their targets.

    Args:
        loc: [N, 4, D] offsets.
        conf: [N, num_labels, D] logits, the background first.
        targets: Targets of the same default boxes.
        settings: Number of negatives, label smoothing, and weight of the boxes.
    """
    positive = targets.labels > 0
    count = positive.sum().clamp(min=1)
    offsets = targets.offsets.transpose(1, 2)
    difference = F.smooth_l1_loss(loc.float(), offsets, reduction="none", beta=settings.smooth_l1_beta).sum(dim=1)
    boxes = settings.box_weight * torch.where(positive, difference, torch.zeros_like(difference)).sum() / count
    entropy = F.cross_entropy(
        conf.float(), targets.labels.clamp(min=0), reduction="none", label_smoothing=settings.label_smoothing
    )
    counted = positive | hard_negatives(entropy.detach(), targets.labels, settings)
    classes = torch.where(counted, entropy, torch.zeros_like(entropy)).sum() / count
    return Loss(boxes, classes)


def hard_negatives(entropy: Tensor, labels: Tensor, settings: LossConfig) -> Tensor:
    """Choose the background boxes that count: in each image, those with the highest loss.

    Args:
        entropy: FP32 [N, D], the loss of each box.
        labels: INT64 [N, D], as in :class:`Targets`.
        settings: Number of negatives for each positive, and the least number in an image.

    Returns:
        BOOL [N, D].
    """
    background = labels == 0
    positives = (labels > 0).sum(dim=1)
    wanted = (positives * settings.negatives_per_positive).clamp(min=settings.min_negatives)
    # -1 is below every entropy, so that background boxes come first.
    ranked = torch.where(background, entropy, torch.full_like(entropy, -1.0))
    order = ranked.sort(dim=1, descending=True, stable=True).indices
    rank = torch.empty_like(order)
    rank.scatter_(1, order, torch.arange(order.shape[1], device=order.device).expand_as(order))
    return background & (rank < wanted[:, None])
