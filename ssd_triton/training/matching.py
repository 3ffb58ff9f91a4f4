"""Matching of default boxes with objects, for whole batches on the device.

Source: NVIDIA DeepLearningExamples ``PyTorch/Detection/SSD`` (``ssd/utils.py``, ``Encoder.encode``): a default box is
matched with the object that it overlaps most, if their IoU is at least 0.5; and the best default box of every object is
matched with it, whatever their IoU. Objects that few default boxes fit, mostly small ones, are matched with those that
overlap them most, as in Zhang et al., "S3FD: Single Shot Scale-invariant Face Detector" (2017), section 3.2. Ignored
objects are our own addition.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ssd_triton.detector.network.boxes import CENTER_VARIANCE, SIZE_VARIANCE
from ssd_triton.training.examples import IGNORED, PADDING

MIN_IOU = 0.5
MIN_FALLBACK_IOU = 0.1
"""Least IoU of a fallback for an object that no default box fits: Zhang et al., section 3.2."""
MIN_IGNORED_FRACTION = 0.5
"""A default box with at least this fraction within an ignored box is not background."""
_NONE = -1


class Targets(NamedTuple):
    """The network's ideal predictions.

    Attributes:
        labels: INT64 [N, D]: the class id of the matched object, 0 for background,
            :data:`ssd_triton.training.examples.IGNORED` for neither.
        offsets: FP32 [N, D, 4], offsets of the matched objects; meaningless unless the label is above 0.
    """

    labels: Tensor
    offsets: Tensor


class BoxCount:
    """The number of boxes in a batch, copied to the host in the background.

    The copy starts at once, so that a later :meth:`read` does not wait for work that was queued in the meantime.
    """

    def __init__(self, labels: Tensor) -> None:
        """Start counting; ``labels`` as in :func:`match`."""
        self._count = (labels != PADDING).sum().to("cpu", non_blocking=True)
        self._copied: torch.cuda.Event | None = None
        if labels.is_cuda:
            self._copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._copied.record(torch.cuda.current_stream(labels.device))

    def read(self) -> int:
        """Wait for the number."""
        if self._copied is not None:
            self._copied.synchronize()
        return int(self._count)


class _Rows(NamedTuple):
    """The boxes of a batch, image after image, without the padding between them.

    Attributes:
        boxes_xyxy: FP32 [K, 4].
        labels: INT64 [K].
        image: INT64 [K], index of each box's image.
        lengths: INT64 [N], number of boxes in each image.
    """

    boxes_xyxy: Tensor
    labels: Tensor
    image: Tensor
    lengths: Tensor


def match(
    boxes_xyxy: Tensor, labels: Tensor, defaults_cxcywh: Tensor, *, fallback: int = 1, count: BoxCount | None = None
) -> Targets:
    """Match the objects of a batch with default boxes.

    Among equal overlaps, the first object and the first default box win; if two objects have the same best default box,
    the last object gets it.

    Args:
        boxes_xyxy: FP32 [N, G, 4], fractions of the images.
        labels: INT64 [N, G]: class ids, padding, or ignored boxes.
        defaults_cxcywh: FP32 [D, 4].
        fallback: Number of default boxes, 1 or more, that are matched with an object even below :data:`MIN_IOU`: those
            with the highest IoU, if it is at least :data:`MIN_FALLBACK_IOU`.
        count: The count of these labels; None counts them now, and the host waits.
    """
    rows = _without_padding(boxes_xyxy, labels, (count or BoxCount(labels)).read())
    overlap = _overlaps(rows, defaults_cxcywh)
    forced = _forced(overlap.argmax(dim=1), rows, len(defaults_cxcywh))
    least_iou = _least_iou(overlap, fallback)
    best_iou = _of_images(overlap, rows, "max")
    in_ignored = -_of_images(overlap, rows, "min")
    best_row = _first_row(overlap, best_iou, rows)
    # Default boxes without a matching row refer to an extra last row without an object.
    row_labels, row_boxes = F.pad(rows.labels, (0, 1)), F.pad(rows.boxes_xyxy, (0, 0, 0, 1))
    positive = (forced != _NONE) | (best_iou >= F.pad(least_iou, (0, 1), value=MIN_IOU)[best_row])
    matched = torch.where(forced == _NONE, best_row, forced)
    background = torch.where(in_ignored >= MIN_IGNORED_FRACTION, IGNORED, 0)
    target_labels = torch.where(positive, row_labels[matched], background)
    return Targets(target_labels, encode(row_boxes[matched], defaults_cxcywh))


def encode(boxes_xyxy: Tensor, defaults_cxcywh: Tensor) -> Tensor:
    """Offsets of boxes [..., D, 4] against default boxes [D, 4], as :func:`ssd_triton.detector.network.boxes.encode`.

    Padding has no size, and gives finite but meaningless numbers.
    """
    top_left, bottom_right = boxes_xyxy[..., :2], boxes_xyxy[..., 2:]
    center = ((top_left + bottom_right) / 2 - defaults_cxcywh[:, :2]) / defaults_cxcywh[:, 2:] / CENTER_VARIANCE
    size = torch.log((bottom_right - top_left).clamp(min=1e-6) / defaults_cxcywh[:, 2:]) / SIZE_VARIANCE
    return torch.cat([center, size], dim=-1)


def _without_padding(boxes_xyxy: Tensor, labels: Tensor, count: int) -> _Rows:
    used = labels != PADDING
    # A stable sort, since torch.nonzero would make the host wait.
    chosen = used.flatten().byte().sort(descending=True, stable=True).indices[:count]
    image = chosen.div(max(labels.shape[1], 1), rounding_mode="floor")
    return _Rows(boxes_xyxy.flatten(0, 1)[chosen], labels.flatten()[chosen], image, used.sum(dim=1))


def _overlaps(rows: _Rows, defaults_cxcywh: Tensor) -> Tensor:
    """FP32 [K, D]: the IoU with objects; for ignored boxes, minus the fraction of the default box within them.

    One matrix holds both, distinguished by their sign, to save memory traffic.
    """
    low = defaults_cxcywh[:, :2] - defaults_cxcywh[:, 2:] / 2
    high = defaults_cxcywh[:, :2] + defaults_cxcywh[:, 2:] / 2
    width, height = (
        torch.minimum(rows.boxes_xyxy[:, axis + 2, None], high[:, axis])
        .sub_(torch.maximum(rows.boxes_xyxy[:, axis, None], low[:, axis]))
        .clamp_(min=0)
        for axis in (0, 1)
    )
    intersection = width.mul_(height)
    box_area = (rows.boxes_xyxy[:, 2:] - rows.boxes_xyxy[:, :2]).prod(dim=-1)
    default_area = defaults_cxcywh[:, 2:].prod(dim=-1)
    union = torch.add(box_area[:, None], default_area, out=height).sub_(intersection)
    return intersection.div_(torch.where((rows.labels == IGNORED)[:, None], -default_area, union))


def _least_iou(overlap: Tensor, fallback: int) -> Tensor:
    """The IoU from which default boxes are matched with each object, [K]."""
    if fallback == 1:
        return torch.full_like(overlap[:, 0], MIN_IOU)
    return overlap.topk(min(fallback, overlap.shape[1]), dim=1).values[:, -1].clamp(MIN_FALLBACK_IOU, MIN_IOU)


def _of_images(values: Tensor, rows: _Rows, reduce: str) -> Tensor:
    """The maximum or minimum of 0 and each image's rows: [K, D] -> [N, D]."""
    # Unsafe: the check that the lengths add up to the rows, as they do, would make the host wait.
    return torch.segment_reduce(values, reduce, lengths=rows.lengths, axis=0, unsafe=True, initial=0.0)


def _first_row(overlap: Tensor, best_iou: Tensor, rows: _Rows) -> Tensor:
    """INT64 [N, D]: the first row of the image with the best IoU, K if there is none; changes ``overlap``."""
    count = len(rows.labels)
    # FP32 counts rows exactly up to 2^24.
    from_end = torch.arange(count, 0, -1, device=overlap.device, dtype=overlap.dtype)
    first = overlap.eq_(best_iou[rows.image]).mul_(from_end[:, None])
    return count - _of_images(first, rows, "max").long()


def _forced(best_default: Tensor, rows: _Rows, num_defaults: int) -> Tensor:
    """INT64 [N, D]: the last row whose best default box this is, or :data:`_NONE`."""
    index = torch.arange(len(rows.labels), device=rows.labels.device)
    index = torch.where(rows.labels > 0, index, _NONE)
    none = torch.full((len(rows.lengths) * num_defaults,), _NONE, dtype=index.dtype, device=index.device)
    forced = none.scatter_reduce(0, rows.image * num_defaults + best_default, index, reduce="amax")
    return forced.reshape(-1, num_defaults)
