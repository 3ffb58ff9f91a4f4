"""Learning from the outputs of a network instead of from annotations, so that what it can is kept.

Source: Li and Hoiem, "Learning without Forgetting" (2017): a network that is fine-tuned on new data keeps its function
on other images if it is trained to give there what it gave before. Unlike annotations of a small set, which a long
training learns by heart, these outputs hold no more than the network that is to be kept.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssd_triton.config import LossConfig
from ssd_triton.detector.network.ssd import SSD300, fold_batch_norms
from ssd_triton.training.augmentation import Batch
from ssd_triton.training.examples import IGNORED
from ssd_triton.training.loss import Loss, multibox_loss
from ssd_triton.training.matching import Targets


class Teacher:
    """The network that a training begins with, as it is at the start."""

    def __init__(self, network: SSD300, dtype: torch.dtype) -> None:
        """Copy a network.

        Args:
            network: Stays as it is.
            dtype: Precision of the copy.
        """
        frozen = copy.deepcopy(network).eval()
        fold_batch_norms(frozen)
        self._network: nn.Module = frozen.requires_grad_(requires_grad=False).to(dtype)
        self._dtype = dtype

    def loss(self, batch: Batch, predicted: tuple[Tensor, Tensor], targets: Targets, settings: LossConfig) -> Loss:
        """Compare taught images with the teacher's outputs, and the others with their annotations.

        Args:
            batch: What was predicted from.
            predicted: ``loc`` [N, 4, D] and ``conf`` [N, num_labels, D], logits.
            targets: Of all images, by their annotations.
            settings: Of the loss by annotations, and how much the teacher's weighs.
        """
        with torch.no_grad(), torch.autocast(batch.images.device.type, enabled=False):
            loc, conf = self._network(batch.images.to(self._dtype))
        labels = targets.labels.masked_fill(batch.taught[:, None], IGNORED)
        annotated = multibox_loss(*predicted, Targets(labels, targets.offsets), settings)
        taught = taught_loss(*predicted, loc.float(), conf.float(), batch.taught)
        weight = settings.teacher_weight
        return Loss(annotated.boxes + weight * taught.boxes, annotated.classes + weight * taught.classes)


def taught_loss(loc: Tensor, conf: Tensor, teacher_loc: Tensor, teacher_conf: Tensor, taught: Tensor) -> Loss:
    """How far predictions are from a teacher's, over the objects that the teacher sees.

    Every default box counts for its classes (Kullback-Leibler divergence), and for its offsets (smooth L1) as much as
    the teacher takes it for an object.

    Args:
        loc: [N, 4, D] offsets.
        conf: [N, num_labels, D] logits, the background first.
        teacher_loc: FP32, of the same shape.
        teacher_conf: FP32, likewise.
        taught: BOOL [N], the images that count.
    """
    expected = teacher_conf.log_softmax(dim=1)
    objectness = (1 - expected[:, 0].exp()) * taught[:, None]
    count = objectness.sum().clamp(min=1)
    difference = F.smooth_l1_loss(loc.float(), teacher_loc, reduction="none").sum(dim=1)
    divergence = F.kl_div(conf.float().log_softmax(dim=1), expected, reduction="none", log_target=True).sum(dim=1)
    return Loss((difference * objectness).sum() / count, (divergence * taught[:, None]).sum() / count)
