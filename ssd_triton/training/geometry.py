"""The mapping from source images to augmented ones, the same for pixels and boxes.

Everything is batched tensor arithmetic in fractions of images. There are no loops over images, and the host never waits
for the device.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ssd_triton.detector.network.boxes import IMAGE_SIZE_PX
from ssd_triton.training.examples import IGNORED, PADDING

SUPERSAMPLING = 2
"""Samples along each side of a pixel, since a single bilinear sample aliases where the source is shrunk."""
TILES = 4
"""Number of sources in a mosaic."""


@dataclass(frozen=True)
class Placement:
    """Where sources are placed: FP32 [N, 4], fractions of images.

    Attributes:
        region: Left, top, right, bottom of the visible part of the source; may exceed [0, 1]. Left and right are
            swapped for a mirrored source.
        target: Left, top, right, bottom of the part of the result that the region fills.
    """

    region: Tensor
    target: Tensor

    def mirrored(self, chosen: Tensor) -> Placement:
        """Swap left and right of the regions where ``chosen``, BOOL [N], is true."""
        swapped = self.region[:, [2, 1, 0, 3]]
        return Placement(torch.where(chosen[:, None], swapped, self.region), self.target)


def sample(pixels: Tensor, placement: Placement) -> Tensor:
    """Sample the region of each source; pixels outside a source are 0.

    Args:
        pixels: FP32 [N, 3, S, S].
        placement: One for each source; sampling continues beyond the target.

    Returns:
        FP32 [N, 3, 300, 300].
    """
    side = IMAGE_SIZE_PX * SUPERSAMPLING
    centers = (torch.arange(side, device=pixels.device, dtype=torch.float32) + 0.5) / side
    x, y = (_to_source(centers, placement, axis) for axis in (0, 1))
    grid = torch.stack([x[:, None, :].expand(-1, side, -1), y[:, :, None].expand(-1, -1, side)], dim=-1) * 2 - 1
    return F.avg_pool2d(F.grid_sample(pixels, grid, mode="bilinear", align_corners=False), SUPERSAMPLING)


def sample_mosaic(pixels: Tensor, placement: Placement) -> Tensor:
    """Sample images of four sources each; each sample is taken from one source only.

    Args:
        pixels: FP32 [N, 3, 4 * S, S]: four sources below each other.
        placement: [4 * N, 4], for each image top left, top right, bottom left and bottom right. The four targets meet
            at a point; the regions are within the sources.

    Returns:
        FP32 [N, 3, 300, 300].
    """
    side, source_px = IMAGE_SIZE_PX * SUPERSAMPLING, pixels.shape[3]
    centers = (torch.arange(side, device=pixels.device, dtype=torch.float32) + 0.5) / side
    # [N, 4, side]: for each place along an axis, the place in each of the four sources; half a pixel or more from the
    # border, so that a sample takes nothing from the source above or below.
    border = 0.5 / source_px
    x, y = (_to_source(centers, placement, axis).reshape(-1, TILES, side).clamp(border, 1 - border) for axis in (0, 1))
    meeting = placement.target[::TILES, 2:]
    right, below = centers >= meeting[:, :1], centers >= meeting[:, 1:]
    right, below = right[:, None, :], below[:, :, None]
    source_x = torch.where(
        below,
        torch.where(right, x[:, 3, None, :], x[:, 2, None, :]),
        torch.where(right, x[:, 1, None, :], x[:, 0, None, :]),
    )
    # The integer part is the source's place in the stack.
    left_y = torch.where(below, 2 + y[:, 2, :, None], y[:, 0, :, None])
    right_y = torch.where(below, 3 + y[:, 3, :, None], 1 + y[:, 1, :, None])
    source_y = torch.where(right, right_y, left_y) / TILES
    grid = torch.stack([source_x, source_y], dim=-1) * 2 - 1
    return F.avg_pool2d(F.grid_sample(pixels, grid, mode="bilinear", align_corners=False), SUPERSAMPLING)


def _to_source(places: Tensor, placement: Placement, axis: int) -> Tensor:
    """[M] places in the result along an axis -> [N, M] places in each source."""
    start, end = placement.target[:, axis, None], placement.target[:, axis + 2, None]
    first, last = placement.region[:, axis, None], placement.region[:, axis + 2, None]
    return first + (places - start) / (end - start) * (last - first)


def move_boxes(
    boxes_xyxy: Tensor, labels: Tensor, placement: Placement, *, min_visible: float, min_side_px: float
) -> tuple[Tensor, Tensor]:
    """Move boxes to the result, and cut them at the border of their target.

    Args:
        boxes_xyxy: FP32 [N, G, 4], fractions of the sources.
        labels: INT64 [N, G].
        placement: One for each source.
        min_visible: Objects with a smaller visible fraction of their box are ignored.
        min_side_px: Objects that are thinner in the result are ignored.

    Returns:
        Boxes and labels of the same shapes; invisible ones become padding.
    """
    scale = (placement.target[:, 2:] - placement.target[:, :2]) / (placement.region[:, 2:] - placement.region[:, :2])
    corners = boxes_xyxy.reshape(*labels.shape, 2, 2)
    moved = (corners - placement.region[:, None, None, :2]) * scale[:, None, None] + placement.target[:, None, None, :2]
    top_left, bottom_right = moved.amin(dim=2), moved.amax(dim=2)
    low, high = placement.target[:, None, :2], placement.target[:, None, 2:]
    cut_top_left = torch.minimum(torch.maximum(top_left, low), high)
    cut_bottom_right = torch.minimum(torch.maximum(bottom_right, low), high)
    sides = cut_bottom_right - cut_top_left
    visible = sides.prod(dim=-1) / (bottom_right - top_left).prod(dim=-1).clamp(min=1e-12)
    seen = (labels != PADDING) & (sides > 0).all(dim=-1)
    # Rounding may take a box with just the least visible fraction below it.
    whole_enough = (visible >= min_visible - 1e-6) & (sides >= min_side_px / IMAGE_SIZE_PX).all(dim=-1)
    kept = torch.where(whole_enough, labels, torch.full_like(labels, IGNORED))
    boxes = torch.cat([cut_top_left, cut_bottom_right], dim=-1)
    return torch.where(seen[..., None], boxes, torch.zeros_like(boxes)), torch.where(seen, kept, PADDING)


def largest_first(boxes_xyxy: Tensor, labels: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Keep the ``most`` largest of [N, G] boxes of each image; padding comes last."""
    area = (boxes_xyxy[..., 2:] - boxes_xyxy[..., :2]).prod(dim=-1)
    area = torch.where(labels == PADDING, torch.full_like(area, -1.0), area)
    order = area.sort(dim=1, descending=True, stable=True).indices[:, :most]
    return boxes_xyxy.gather(1, order[..., None].expand(-1, -1, 4)), labels.gather(1, order)
