"""Which default box is to find which object, for whole batches on the device.

Source: NVIDIA DeepLearningExamples ``PyTorch/Detection/SSD`` (``ssd/utils.py``, ``Encoder.encode``): a default box is
matched with the object that it overlaps most, if their IoU is at least 0.5; and the best default box of every object is
matched with it whatever their IoU. Objects that few default boxes fit, small ones above all, are matched with the few
that overlap them most, as in Zhang et al., "S3FD: Single Shot Scale-invariant Face Detector" (2017), section 3.2.
Objects to ignore are our own addition.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ssd_triton.network.boxes import CENTER_VARIANCE, SIZE_VARIANCE
from ssd_triton.training.examples import IGNORED

MIN_IOU = 0.5
MIN_FALLBACK_IOU = 0.1
"""With less, a default box is no fallback for an object that none fits: Zhang et al., section 3.2."""
MIN_IGNORED_PART = 0.5
"""A default box of which this part lies in an ignored box is no background."""
_NONE = -1


class Targets(NamedTuple):
    """What the network shall predict.

    Attributes:
        labels: INT64 [N, D]: the class id of the matched object, 0 for background,
            :data:`ssd_triton.training.examples.IGNORED` for neither.
        offsets: FP32 [N, D, 4], of the matched objects; of no meaning where the label is not above 0.
    """

    labels: Tensor
    offsets: Tensor


def match(boxes_xyxy: Tensor, labels: Tensor, defaults_cxcywh: Tensor, *, fallback: int = 1) -> Targets:
    """Match the objects of a batch with default boxes.

    Of equal overlaps, the first object and the first default box count; where two objects have the same best default
    box, the last object gets it.

    Args:
        boxes_xyxy: FP32 [N, G, 4], fractions of the images.
        labels: INT64 [N, G]: class ids, padding, or ignored boxes.
        defaults_cxcywh: FP32 [D, 4].
        fallback: An object gets this many default boxes, those of the highest IoU, even if that is less than
            :data:`MIN_IOU`, but not less than :data:`MIN_FALLBACK_IOU`; 1 or more.
    """
    intersection, box_area, default_area = _areas(boxes_xyxy, defaults_cxcywh)
    is_object = (labels > 0)[..., None]
    iou = intersection / (box_area[..., None] + default_area - intersection)
    # Below every real overlap, so that neither padding nor ignored boxes are ever the best.
    iou = torch.where(is_object, iou, torch.full_like(iou, -1.0))
    best_iou, best_object = iou.max(dim=1)
    forced = _forced(iou.argmax(dim=2), labels, len(defaults_cxcywh))
    matched = torch.where(forced == _NONE, best_object, forced)
    positive = (forced != _NONE) | (best_iou >= _least_iou(iou, fallback).gather(1, best_object))
    in_ignored = torch.where((labels == IGNORED)[..., None], intersection / default_area, 0.0).amax(dim=1)
    background = torch.where(in_ignored >= MIN_IGNORED_PART, IGNORED, 0)
    target_labels = torch.where(positive, labels.gather(1, matched), background)
    target_boxes = boxes_xyxy.gather(1, matched[..., None].expand(-1, -1, 4))
    return Targets(target_labels, encode(target_boxes, defaults_cxcywh))


def encode(boxes_xyxy: Tensor, defaults_cxcywh: Tensor) -> Tensor:
    """Offsets of boxes [..., D, 4] against default boxes [D, 4], as :func:`ssd_triton.network.boxes.encode`.

    Padding, which has no size, gives finite numbers of no meaning.
    """
    top_left, bottom_right = boxes_xyxy[..., :2], boxes_xyxy[..., 2:]
    center = ((top_left + bottom_right) / 2 - defaults_cxcywh[:, :2]) / defaults_cxcywh[:, 2:] / CENTER_VARIANCE
    size = torch.log((bottom_right - top_left).clamp(min=1e-6) / defaults_cxcywh[:, 2:]) / SIZE_VARIANCE
    return torch.cat([center, size], dim=-1)


def _least_iou(iou: Tensor, fallback: int) -> Tensor:
    """From which IoU on default boxes are matched with each object, [N, G]; ``iou`` is [N, G, D]."""
    if fallback == 1:
        return torch.full_like(iou[..., 0], MIN_IOU)
    return iou.topk(min(fallback, iou.shape[2]), dim=2).values[..., -1].clamp(MIN_FALLBACK_IOU, MIN_IOU)


def _areas(boxes_xyxy: Tensor, defaults_cxcywh: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Intersections [N, G, D], and areas of boxes [N, G] and default boxes [D]."""
    low = defaults_cxcywh[:, :2] - defaults_cxcywh[:, 2:] / 2
    high = defaults_cxcywh[:, :2] + defaults_cxcywh[:, 2:] / 2
    width, height = (
        (
            torch.minimum(boxes_xyxy[..., axis + 2, None], high[:, axis])
            - torch.maximum(boxes_xyxy[..., axis, None], low[:, axis])
        ).clamp(min=0)
        for axis in (0, 1)
    )
    box_area = (boxes_xyxy[..., 2:] - boxes_xyxy[..., :2]).prod(dim=-1)
    return width * height, box_area, defaults_cxcywh[:, 2:].prod(dim=-1)


def _forced(best_default: Tensor, labels: Tensor, num_defaults: int) -> Tensor:
    """The object, by index, whose best default box each one is, [N, D]: the last of several, :data:`_NONE` of none."""
    index = torch.arange(labels.shape[1], device=labels.device).expand_as(labels)
    index = torch.where(labels > 0, index, _NONE)
    none = torch.full((len(labels), num_defaults), _NONE, dtype=labels.dtype, device=labels.device)
    return none.scatter_reduce(1, best_default, index, reduce="amax")
