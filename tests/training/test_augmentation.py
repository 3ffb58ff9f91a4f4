"""Augmentation, against hand-made cases."""

from __future__ import annotations

import pytest
import torch

from ssd_triton.config import Config
from ssd_triton.training.augmentation import Augmentation
from ssd_triton.training.examples import IGNORED, PADDING
from ssd_triton.training.geometry import Placement, move_boxes, sample, sample_mosaic
from ssd_triton.training.random_erasing import erase
from tests.training.helpers import COLOURS_RGB, SIDE_PX, boxes_of, changed, rectangles


def one_place(region: tuple[float, ...], target: tuple[float, ...] = (0, 0, 1, 1)) -> Placement:
    return Placement(torch.tensor([region], dtype=torch.float32), torch.tensor([target], dtype=torch.float32))


@pytest.mark.parametrize(
    ("box", "region", "target", "expected", "label"),
    [
        pytest.param((0.2, 0.2, 0.4, 0.6), (0, 0, 1, 1), (0, 0, 1, 1), (0.2, 0.2, 0.4, 0.6), 1, id="whole"),
        pytest.param((0.2, 0.2, 0.4, 0.6), (1, 0, 0, 1), (0, 0, 1, 1), (0.6, 0.2, 0.8, 0.6), 1, id="mirrored"),
        pytest.param((0.5, 0.5, 0.75, 1), (0.5, 0.5, 1, 1), (0, 0, 1, 1), (0, 0, 0.5, 1), 1, id="on the border"),
        pytest.param((0, 0, 1, 1), (0, 0, 0.5, 1), (0, 0, 1, 1), (0, 0, 1, 1), 1, id="half stays"),
        pytest.param((0, 0, 1, 1), (0, 0, 0.2, 1), (0, 0, 1, 1), (0, 0, 1, 1), IGNORED, id="a fifth stays"),
        pytest.param((0.6, 0, 1, 1), (0, 0, 0.5, 1), (0, 0, 1, 1), (0, 0, 0, 0), PADDING, id="out of sight"),
        pytest.param((0.5, 0.5, 0.51, 1), (0, 0, 1, 1), (0, 0, 1, 1), (0.5, 0.5, 0.51, 1), IGNORED, id="too thin"),
        pytest.param((0, 0, 1, 1), (-1, -1, 1, 1), (0, 0, 1, 1), (0.5, 0.5, 1, 1), 1, id="zoomed out"),
        pytest.param((0, 0, 1, 0.5), (0, 0, 1, 1), (0.5, 0, 1, 0.5), (0.5, 0, 1, 0.25), 1, id="in a mosaic's tile"),
    ],
)
def test_boxes_move_with_their_image(
    box: tuple[float, ...],
    region: tuple[float, ...],
    target: tuple[float, ...],
    expected: tuple[float, ...],
    label: int,
) -> None:
    moved, labels = move_boxes(
        boxes_of(box), torch.tensor([[1]]), one_place(region, target), min_visible=0.4, min_side_px=4.0
    )
    assert labels.tolist() == [[label]]
    assert moved[0, 0].tolist() == pytest.approx(expected, abs=1e-6)


def whole(count: int) -> Placement:
    full = torch.tensor([[0.0, 0.0, 1.0, 1.0]]).expand(count, 4)
    return Placement(full, full)


def test_flip_of_a_flip_is_the_identity() -> None:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.rand(2, 3, SIDE_PX, SIDE_PX, generator=generator)
    everywhere = torch.ones(2, dtype=torch.bool)
    flip = whole(2).mirrored(everywhere)
    once = sample(pixels, flip)
    assert not torch.allclose(once, sample(pixels, whole(2)), atol=1e-3)
    # Sampling blurs: the mirror image of one blur is that of the other, so that each is compared with its own.
    torch.testing.assert_close(once.flip(3), sample(pixels, whole(2)), atol=1e-4, rtol=0)
    boxes, labels = torch.tensor([[[0.1, 0.2, 0.3, 0.9]]]).expand(2, 1, 4), torch.ones(2, 1, dtype=torch.long)
    there = move_boxes(boxes, labels, flip, min_visible=0.4, min_side_px=4)
    back = move_boxes(*there, flip, min_visible=0.4, min_side_px=4)
    torch.testing.assert_close(back[0], boxes, atol=1e-6, rtol=0)
    assert torch.equal(back[1], labels)
    assert torch.equal(flip.mirrored(everywhere).region, whole(2).region)


def test_a_mosaic_has_the_pixels_of_its_four_sources() -> None:
    pixels = torch.rand(4, 3, SIDE_PX, SIDE_PX, generator=torch.Generator().manual_seed(0))
    corners = [(0, 0, 0.4, 0.6), (0.4, 0, 1, 0.6), (0, 0.6, 0.4, 1), (0.4, 0.6, 1, 1)]
    regions = [(0, 0, 1, 1), (0.9, 0.1, 0.2, 0.8), (0, 0, 0.5, 0.5), (1, 0, 0, 1)]
    placement = Placement(torch.tensor(regions, dtype=torch.float32), torch.tensor(corners))
    drawn = sample_mosaic(pixels.transpose(0, 1).flatten(1, 2)[None], placement)
    assert drawn.shape == (1, 3, SIDE_PX, SIDE_PX)
    for tile, (left, top, right, bottom) in enumerate(corners):
        alone = sample(pixels[tile : tile + 1], Placement(placement.region[[tile]], placement.target[[tile]]))
        # A pixel at each border: a single source is mixed with nothing there, and a mosaic's is not.
        rows, columns = (
            slice(round(low * SIDE_PX) + 1, round(high * SIDE_PX) - 1) for low, high in ((top, bottom), (left, right))
        )
        torch.testing.assert_close(drawn[..., rows, columns], alone[..., rows, columns], atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="nothing"),
        pytest.param({"flip_fraction": 1.0}, id="flip"),
        pytest.param({"zoom_in_fraction": 1.0}, id="zoom in"),
        pytest.param({"zoom_out_fraction": 1.0}, id="zoom out"),
        pytest.param({"mosaic_fraction": 1.0}, id="mosaic"),
        pytest.param(
            {"mosaic_fraction": 0.5, "zoom_in_fraction": 0.5, "zoom_out_fraction": 0.5, "flip_fraction": 0.5}, id="all"
        ),
    ],
)
def test_augmented_boxes_hold_what_they_name(config: Config, changes: dict[str, float]) -> None:
    """The pixels in a box have its rectangle's colour, and those of that colour lie in boxes or ignored boxes."""
    batch = Augmentation(rectangles(6, 352), changed(config, **changes), torch.Generator().manual_seed(1)).batch(8)
    rgb = (batch.images * torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)) + torch.tensor(
        [0.485, 0.456, 0.406]
    ).view(1, 3, 1, 1)
    seen = 0
    for image, boxes, labels in zip(rgb * 255, batch.boxes_xyxy, batch.labels, strict=True):
        uncovered = {
            class_id: (image - torch.tensor(colour).view(3, 1, 1)).abs().amax(dim=0) < 8
            for class_id, colour in COLOURS_RGB.items()
        }
        for box, label in zip((boxes * SIDE_PX).tolist(), labels.tolist(), strict=True):
            left, top, right, bottom = (round(side) for side in box)
            for class_id, mask in uncovered.items():
                if label in (class_id, IGNORED):
                    if label == class_id and right - left > 4 and bottom - top > 4:
                        seen += 1
                        assert mask[top + 2 : bottom - 2, left + 2 : right - 2].all()
                    mask[max(top - 2, 0) : bottom + 2, max(left - 2, 0) : right + 2] = False
        assert not any(mask.any() for mask in uncovered.values())
    assert seen >= 8


def test_augmentation_is_that_of_its_seed(config: Config) -> None:
    sources, settings = rectangles(4, 300), config.training.augmentation
    first, again, other = (
        Augmentation(sources, settings, torch.Generator().manual_seed(seed)).batch(4) for seed in (1, 1, 2)
    )
    assert torch.equal(first.images, again.images)
    assert torch.equal(first.boxes_xyxy, again.boxes_xyxy)
    assert not torch.equal(first.images, other.images)
    assert torch.isfinite(first.images).all()


@pytest.mark.parametrize("size", [1, 2, 3])
def test_batches_of_any_size(config: Config, size: int) -> None:
    batch = Augmentation(rectangles(2, 300), config.training.augmentation, torch.Generator().manual_seed(0)).batch(size)
    assert batch.images.shape == (size, 3, 300, 300)
    assert batch.labels.shape[0] == batch.boxes_xyxy.shape[0] == size
    assert batch.images.is_contiguous(memory_format=torch.channels_last)


def test_erasing_hides_objects(config: Config) -> None:
    settings = changed(config, erase_fraction=1.0, erase_max_side=1.0)
    images = torch.ones(64, 3, 30, 30)
    boxes = boxes_of((0.45, 0.45, 0.55, 0.55), (0, 0, 1, 1)).expand(64, 2, 4)
    labels = torch.tensor([[1, PADDING]]).expand(64, 2)
    erased, found = erase(images, boxes, labels, settings, torch.Generator().manual_seed(0))
    hidden = erased[:, 0, 15, 15] == 0
    assert 0 < hidden.sum() < 64
    assert (found[:, 1] == PADDING).all()
    agreeing = (found[:, 0] == IGNORED) == hidden
    assert agreeing.float().mean() > 0.8  # the box is wider than the pixel that is looked at
