"""Learning from a network's own outputs instead of from annotations, to keep its skills.

Source: Li and Hoiem, "Learning without Forgetting" (2017): a network that is fine-tuned on new data keeps its function
on other images if it is trained to repeat its earlier outputs there. A long training overfits the annotations of a
small set; the outputs contain only what the network already knows.
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
    """A frozen copy of the network at the start of a training."""

    def __init__(self, network: SSD300, dtype: torch.dtype) -> None:
        """Copy a network.

        Args:
            network: Unchanged.
            dtype: Precision of the copy.
        """
        frozen = copy.deepcopy(network).eval()
        fold_batch_norms(frozen)
        self._network: nn.Module = frozen.requires_grad_(requires_grad=False).to(dtype)
        self._dtype = dtype

    def loss(self, batch: Batch, predicted: tuple[Tensor, Tensor], targets: Targets, settings: LossConfig) -> Loss:
        """Compare the predictions with the teacher's outputs for taught images, and with annotations for all others.

        Args:
            batch: Input of the predictions.
            predicted: ``loc`` [N, 4, D] and ``conf`` [N, num_labels, D], logits.
            targets: Targets of all images by their annotations.
            settings: Settings of the loss by annotations, and weight of the teacher.
        """
        with torch.no_grad(), torch.autocast(batch.images.device.type, enabled=False):
            loc, conf = self._network(batch.images.to(self._dtype))
        labels = targets.labels.masked_fill(batch.taught[:, None], IGNORED)
        annotated = multibox_loss(*predicted, Targets(labels, targets.offsets), settings)
        taught = taught_loss(*predicted, loc.float(), conf.float(), batch.taught)
        weight = settings.teacher_weight
        return Loss(annotated.boxes + weight * taught.boxes, annotated.classes + weight * taught.classes)


def taught_loss(loc: Tensor, conf: Tensor, teacher_loc: Tensor, teacher_conf: Tensor, taught: Tensor) -> Loss:
    """Compute the difference from a teacher's predictions, divided by the number of objects in these.

    Classes of all default boxes count (Kullback-Leibler divergence); offsets (smooth L1) count in proportion to the
    teacher's score for any object.

    Args:
        loc: [N, 4, D] offsets.
        conf: [N, num_labels, D] logits, the background first.
        teacher_loc: FP32, same shape as ``loc``.
        teacher_conf: FP32, same shape as ``conf``.
        taught: BOOL [N], true for images that count.
    """
    expected = teacher_conf.log_softmax(dim=1)
    objectness = (1 - expected[:, 0].exp()) * taught[:, None]
    count = objectness.sum().clamp(min=1)
    difference = F.smooth_l1_loss(loc.float(), teacher_loc, reduction="none").sum(dim=1)
    divergence = F.kl_div(conf.float().log_softmax(dim=1), expected, reduction="none", log_target=True).sum(dim=1)
    return Loss((difference * objectness).sum() / count, (divergence * taught[:, None]).sum() / count)
