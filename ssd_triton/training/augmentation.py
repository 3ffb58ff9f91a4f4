"""Batches of augmented images, made on the device from source images there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ssd_triton.config import AugmentationConfig
from ssd_triton.training.colour_jitter import jitter_colours
from ssd_triton.training.device_constants import WHOLE, constant, mean_rgb, std_rgb
from ssd_triton.training.geometry import TILES, Placement, largest_first, move_boxes, sample, sample_mosaic
from ssd_triton.training.random_crop import zoom_in, zoom_out
from ssd_triton.training.random_erasing import erase

_MEETING_POINT = (0.4, 0.6)
"""Range of the point where a mosaic's four images meet, as fractions of its sides; outside it, images are too
distorted."""
_MAX_BOXES = 128
"""Largest number of boxes in an image; the largest are kept. COCO's fullest images have about 90."""


@dataclass(frozen=True)
class Batch:
    """The input of a training step.

    Attributes:
        images: FP32 [N, 3, 300, 300], normalised, channels last.
        boxes_xyxy: FP32 [N, G, 4], fractions of the images.
        labels: INT64 [N, G], as :class:`ssd_triton.training.examples.Examples` has them.
        taught: BOOL [N], true for images made of taught sources only.
    """

    images: Tensor
    boxes_xyxy: Tensor
    labels: Tensor
    taught: Tensor


@dataclass(frozen=True)
class Sources:
    """All images to draw from, on one device.

    Attributes:
        pixels: UINT8 [M, 3, S, S] RGB.
        boxes_xyxy: FP32 [M, G, 4], fractions of the images.
        labels: INT64 [M, G].
        weights: FP64 [M], the probability of each image.
        taught: BOOL [M], true for images with a teacher's outputs, see :class:`ssd_triton.training.teacher.Teacher`.
    """

    pixels: Tensor
    boxes_xyxy: Tensor
    labels: Tensor
    weights: Tensor
    taught: Tensor


class _Images(NamedTuple):
    """Images of one kind: FP32 [N, 3, 300, 300] less ImageNet's mean, their boxes and labels; which are taught."""

    pixels: Tensor
    boxes_xyxy: Tensor
    labels: Tensor
    taught: Tensor


class Augmentation:
    """Draws sources and makes batches of them.

    All random numbers come from the generator, so that a resumed training only needs its state.
    """

    def __init__(self, sources: Sources, settings: AugmentationConfig, generator: torch.Generator) -> None:
        """The sources are on the generator's device."""
        self._sources = sources
        # Summed on the CPU, since a GPU may add in a different order each time.
        self._cumulative = sources.weights.cpu().cumsum(0).to(sources.weights.device)
        self._settings = settings
        self._generator = generator
        self._max_boxes = min(TILES * sources.labels.shape[1], _MAX_BOXES)

    def batch(self, size: int) -> Batch:
        """Draw a batch; its first images are mosaics."""
        settings, generator = self._settings, self._generator
        mosaics = round(size * settings.mosaic_fraction)
        kinds = ((self._mosaic, mosaics), (self._single, size - mosaics))
        parts = [make(count) for make, count in kinds if count]
        images, boxes, labels, taught = (torch.cat([part[index] for part in parts]) for index in range(4))
        centered, labels = erase(jitter_colours(images, settings, generator), boxes, labels, settings, generator)
        normalised = centered / std_rgb(centered.device)
        return Batch(normalised.contiguous(memory_format=torch.channels_last), boxes, labels, taught)

    def _single(self, count: int) -> _Images:
        """Make images of one source each: zoomed in or out, or whole."""
        index = self._draw(count)
        region = self._zoomed(index)
        out = zoom_out(count, self._settings.zoom_out_max_ratio, self._generator)
        region = torch.where(self._chance(count, self._settings.zoom_out_fraction), out, region)
        target = constant(WHOLE, region.device).expand(count, 4)
        placement, boxes, labels = self._place(index, Placement(region, target))
        boxes, labels = self._fixed_rows(boxes, labels)
        images = sample(_centered(self._sources.pixels[index]), placement)
        return _Images(images, boxes, labels, self._sources.taught[index])

    def _mosaic(self, count: int) -> _Images:
        """Make images of four sources each, which meet at a random point."""
        index = self._draw(count * TILES)
        low, high = _MEETING_POINT
        x, y = (low + (high - low) * self._uniform(count, 2)).unbind(dim=1)
        zero, one = torch.zeros_like(x), torch.ones_like(x)
        corners = [(zero, zero, x, y), (x, zero, one, y), (zero, y, x, one), (x, y, one, one)]
        target = torch.stack([torch.stack(corner, dim=-1) for corner in corners], dim=1).flatten(0, 1)
        placement, boxes, labels = self._place(index, Placement(self._zoomed(index), target))
        boxes, labels = self._fixed_rows(boxes.reshape(count, -1, 4), labels.reshape(count, -1))
        sources = self._sources.pixels[index]
        sources = sources.reshape(count, TILES, *sources.shape[1:]).transpose(1, 2).flatten(2, 3)
        taught = self._sources.taught[index].reshape(count, TILES).all(dim=1)
        return _Images(sample_mosaic(_centered(sources), placement), boxes, labels, taught)

    def _place(self, index: Tensor, placement: Placement) -> tuple[Placement, Tensor, Tensor]:
        """Mirror some of the sources, and move all boxes; returns placement, boxes and labels."""
        placement = placement.mirrored(self._chance(len(index), self._settings.flip_fraction)[:, 0])
        boxes, labels = move_boxes(
            self._sources.boxes_xyxy[index],
            self._sources.labels[index],
            placement,
            min_visible=self._settings.min_visible,
            min_side_px=self._settings.min_side_px,
        )
        return placement, boxes, labels

    def _zoomed(self, index: Tensor) -> Tensor:
        """Regions of sources, FP32 [N, 4]: some zoomed in, the others whole."""
        boxes, labels = self._sources.boxes_xyxy[index], self._sources.labels[index]
        patch = zoom_in(boxes, labels > 0, self._settings.zoom_in_min_side, self._generator)
        whole = constant(WHOLE, patch.device)
        return torch.where(self._chance(len(index), self._settings.zoom_in_fraction), patch, whole)

    def _draw(self, count: int) -> Tensor:
        """Random sources by their weights, INT64 [count]; unlike in torch.multinomial, the host does not wait."""
        places = torch.rand(count, dtype=torch.float64, device=self._cumulative.device, generator=self._generator)
        drawn = torch.searchsorted(self._cumulative, places * self._cumulative[-1], right=True)
        return drawn.clamp(max=len(self._cumulative) - 1)

    def _uniform(self, *shape: int) -> Tensor:
        return torch.rand(*shape, device=self._cumulative.device, generator=self._generator)

    def _chance(self, count: int, fraction: float) -> Tensor:
        """BOOL [count, 1], true with the given probability."""
        return self._uniform(count, 1) < fraction

    def _fixed_rows(self, boxes_xyxy: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Cut or pad to the same number of rows for every kind of image."""
        boxes_xyxy, labels = largest_first(boxes_xyxy, labels, self._max_boxes)
        missing = self._max_boxes - labels.shape[1]
        return F.pad(boxes_xyxy, (0, 0, 0, missing)), F.pad(labels, (0, missing))


def _centered(pixels: Tensor) -> Tensor:
    """UINT8 RGB [N, 3, H, W] -> FP32 in [0, 1], less ImageNet's mean."""
    return pixels.float() / 255 - mean_rgb(pixels.device)
