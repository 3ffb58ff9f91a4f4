"""The multibox loss: smooth L1 of offsets and cross-entropy of classes, with hard negatives.

Source: Liu et al., "SSD: Single Shot MultiBox Detector" (2016), section 2.2. It is divided by the number of
positives in the whole batch, so that each object has the same weight. Two additions are our own, for annotations that a
detector made or that people made of some classes only: an unsure box counts less, and the background's probability is
that of background or of a class that is not annotated.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ssd_triton.config import LossConfig
from ssd_triton.training.graded import class_ids, scores
from ssd_triton.training.matching import Targets


class Loss(NamedTuple):
    """Both parts, FP32 scalars: divided by the number of positives, times their weight."""

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
    logits, labels = conf.float(), class_ids(targets.labels)
    positive, certainty = labels > 0, certainties(targets.labels, settings.full_score)
    count = positive.sum().clamp(min=1)
    offsets = targets.offsets.transpose(1, 2)
    difference = F.smooth_l1_loss(loc.float(), offsets, reduction="none", beta=settings.smooth_l1_beta).sum(dim=1)
    boxes = settings.box_weight * torch.where(positive, certainty * difference, 0.0).sum() / count
    smoothing = settings.label_smoothing
    entropy = F.cross_entropy(logits, labels.clamp(min=0), reduction="none", label_smoothing=smoothing)
    if targets.unannotated is not None:
        entropy = entropy - torch.where(labels == 0, (1 - smoothing) * _spared(logits, targets.unannotated), 0.0)
    counted = positive | hard_negatives(entropy.detach(), labels, settings)
    classes = torch.where(counted, certainty * entropy, 0.0).sum() / count
    return Loss(boxes, classes)


def certainties(labels: Tensor, full_score: float) -> Tensor:
    """How much each box counts: FP32 in [0, 1], in the shape of the labels.

    Args:
        labels: As in :class:`Targets`.
        full_score: Score from which a box counts fully; below, it counts in proportion. 0 counts all fully.
    """
    found = scores(labels)
    return (found / full_score).clamp(max=1) if full_score else torch.ones_like(found)


def _spared(logits: Tensor, unannotated: Tensor) -> Tensor:
    """What background loses by classes that are not annotated: log((p_background + their p) / p_background), [N, D]."""
    annotated = ~unannotated
    annotated[:, 0] = False
    return logits.masked_fill(annotated[:, :, None], -torch.inf).logsumexp(dim=1) - logits[:, 0]


def hard_negatives(entropy: Tensor, labels: Tensor, settings: LossConfig) -> Tensor:
    """The background boxes that count: in each image, those with the highest loss.

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
    # Below every entropy, so that only background ranks among the first.
    ranked = torch.where(background, entropy, torch.full_like(entropy, -1.0))
    order = ranked.sort(dim=1, descending=True, stable=True).indices
    rank = torch.empty_like(order)
    rank.scatter_(1, order, torch.arange(order.shape[1], device=order.device).expand_as(order))
    return background & (rank < wanted[:, None])
