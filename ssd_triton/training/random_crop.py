"""Random regions of source images: zoomed in with enough overlap with an object, or zoomed out.

Source of the zoom-in: Liu et al., "SSD: Single Shot MultiBox Detector" (2016), section 2.2: a patch whose IoU with an
object is at least 0.1, 0.3, 0.5, 0.7 or 0.9, or any patch, of aspect ratio 1/2 to 2. Here, many random patches are made
at once for each image, and the first one that fits is used.
"""

from __future__ import annotations

from math import log

import torch
from torch import Tensor

from ssd_triton.training.device_constants import WHOLE, constant

_MIN_IOU = (0.0, 0.1, 0.3, 0.5, 0.7)
"""Without 0.9: such a patch is nearly always a whole image with one large object."""
_TRIALS = 24
"""Number of random patches for each image; if none fits, the whole image is used."""
_MAX_ASPECT = 2.0


def zoom_in(boxes_xyxy: Tensor, is_object: Tensor, min_side: float, generator: torch.Generator) -> Tensor:
    """A random patch of each image that contains the centre of an object and overlaps it enough.

    Args:
        boxes_xyxy: FP32 [N, G, 4].
        is_object: BOOL [N, G], true for boxes of objects.
        min_side: Smallest side of a square patch, as a fraction of the image.
        generator: Generator on the boxes' device.

    Returns:
        FP32 [N, 4]: left, top, right, bottom in [0, 1].
    """
    count, device = len(boxes_xyxy), boxes_xyxy.device

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, device=device, generator=generator)

    scale = min_side + (1 - min_side) * uniform(count, _TRIALS)
    stretch = torch.exp((uniform(count, _TRIALS) - 0.5) * log(_MAX_ASPECT))
    sides = torch.stack([scale * stretch, scale / stretch], dim=-1).clamp(max=1)
    top_left = uniform(count, _TRIALS, 2) * (1 - sides)
    patches = torch.cat([top_left, top_left + sides], dim=-1)
    thresholds = constant(_MIN_IOU, device)
    chosen = (uniform(count) * len(_MIN_IOU)).long()
    fits = _overlaps(patches, boxes_xyxy, is_object, thresholds[chosen])
    first = fits.int().argmax(dim=1)
    found = patches[torch.arange(count, device=device), first]
    return torch.where(fits.any(dim=1)[:, None], found, constant(WHOLE, device))


def zoom_out(count: int, max_ratio: float, generator: torch.Generator) -> Tensor:
    """A region around each image, up to ``max_ratio`` times as wide and high: FP32 [N, 4]."""
    device = generator.device
    ratio = 1 + (max_ratio - 1) * torch.rand(count, 1, device=device, generator=generator)
    top_left = -torch.rand(count, 2, device=device, generator=generator) * (ratio - 1)
    return torch.cat([top_left, top_left + ratio], dim=-1)


def _overlaps(patches: Tensor, boxes_xyxy: Tensor, is_object: Tensor, min_iou: Tensor) -> Tensor:
    """BOOL [N, T]: whether a patch contains the centre of an object and overlaps it by ``min_iou``, FP32 [N]."""
    patch, box = patches[:, :, None], boxes_xyxy[:, None]
    sides = torch.minimum(patch[..., 2:], box[..., 2:]) - torch.maximum(patch[..., :2], box[..., :2])
    intersection = sides.clamp(min=0).prod(dim=-1)
    areas = [(one[..., 2:] - one[..., :2]).prod(dim=-1) for one in (patch, box)]
    iou = intersection / (areas[0] + areas[1] - intersection).clamp(min=1e-12)
    center = (box[..., :2] + box[..., 2:]) / 2
    holds = ((center > patch[..., :2]) & (center < patch[..., 2:])).all(dim=-1)
    return (holds & (iou >= min_iou[:, None, None]) & is_object[:, None]).any(dim=-1)
