"""Training: matching, loss, augmentation and snapshots against hand-made cases, and whole trainings on a CPU."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from ssd_triton.common.errors import UserError
from ssd_triton.common.files import ROOT
from ssd_triton.common.machine import available_memory_bytes
from ssd_triton.config import AugmentationConfig, Config, LossConfig, TrainingConfig
from ssd_triton.detector.network.boxes import default_boxes_cxcywh, to_xyxy
from ssd_triton.detector.network.boxes import encode as encode_numpy
from ssd_triton.detector.network.ssd import SSD300, ServedDetector
from ssd_triton.detector.weights.file import load_network
from ssd_triton.evaluation.annotations import Category
from ssd_triton.evaluation.dataset import DatasetSource, load_dataset
from ssd_triton.evaluation.offline import evaluate_network
from ssd_triton.training import initial_network as start
from ssd_triton.training import memory
from ssd_triton.training.augmentation import Augmentation, Sources
from ssd_triton.training.classes import choose_labels, class_of_category
from ssd_triton.training.constants import default_boxes
from ssd_triton.training.erasing import erase
from ssd_triton.training.errors import TrainingError
from ssd_triton.training.examples import IGNORED, PADDING, Source, draw_weights, load_examples
from ssd_triton.training.geometry import Placement, move_boxes, sample, sample_mosaic
from ssd_triton.training.graph import graphed
from ssd_triton.training.half_safe import LARGEST_FP16, make_half_safe
from ssd_triton.training.history import Record
from ssd_triton.training.loss import hard_negatives, multibox_loss
from ssd_triton.training.matching import Targets, encode, match
from ssd_triton.training.run import CARD, WEIGHTS, Begin, Request, train
from ssd_triton.training.schedule import rate_factor
from ssd_triton.training.snapshot import TrainingState, restore_snapshot, save_snapshot
from ssd_triton.training.teacher import Teacher, taught_loss
from ssd_triton.training.trainable import RunningAverage, freeze, freeze_norms
from ssd_triton.training.trainer import SNAPSHOT
from ssd_triton.training.validation import load_validation
from tests.conftest import assert_one_line_error, group_members

CPU = torch.device("cpu")
LABELS = ("background", "red", "blue")
COLOURS_RGB = {1: (220, 40, 40), 2: (40, 60, 220)}
SIDE_PX = 300
DEFAULTS = torch.from_numpy(default_boxes_cxcywh())
# Two default boxes beside each other, centre and size, so that every overlap can be worked out by hand.
TWO = torch.tensor([[0.25, 0.5, 0.5, 1.0], [0.75, 0.5, 0.5, 1.0]])
OFF = (
    "mosaic_fraction",
    "zoom_in_fraction",
    "zoom_out_fraction",
    "flip_fraction",
    "brightness",
    "contrast",
    "saturation",
    "hue_deg",
    "grey_fraction",
    "noise",
    "erase_fraction",
)


def boxes_of(*rows: tuple[float, float, float, float]) -> torch.Tensor:
    return torch.tensor([rows], dtype=torch.float32)


@pytest.mark.parametrize(
    ("boxes", "labels", "expected"),
    [
        pytest.param([(0, 0, 0, 0)], [PADDING], [0, 0], id="no object"),
        pytest.param([(0, 0, 0.5, 1)], [3], [3, 0], id="one object, exactly a default box"),
        pytest.param([(0, 0, 1, 1)], [3], [3, 3], id="both default boxes overlap it by 0.5, which is enough"),
        pytest.param([(0, 0, 0.1, 0.1)], [3], [3, 0], id="a tiny object gets its best default box all the same"),
        pytest.param([(0, 0, 0.5, 1), (0, 0, 0.5, 1)], [3, 4], [4, 0], id="tie: the last of two equal objects"),
        pytest.param([(0, 0, 0.5, 1), (0, 0, 0.1, 0.1)], [3, 4], [4, 0], id="the same best default box: the last one"),
        pytest.param([(0.5, 0, 1, 1), (0, 0, 0.1, 0.1)], [3, 4], [4, 3], id="every object has one"),
        pytest.param([(0, 0, 0.5, 1)], [IGNORED], [IGNORED, 0], id="crowd: neither object nor background"),
        pytest.param([(0, 0, 0.5, 1), (0, 0, 1, 1)], [3, IGNORED], [3, IGNORED], id="an object in a crowd stays one"),
        pytest.param([(0.4, 0, 0.6, 1)], [IGNORED], [0, 0], id="a crowd that covers little of a default box"),
        pytest.param([(0.9, 0.9, 1, 1)], [3], [0, 3], id="box on the border"),
    ],
)
def test_matching(boxes: list[tuple[float, float, float, float]], labels: list[int], expected: list[int]) -> None:
    targets = match(boxes_of(*boxes), torch.tensor([labels]), TWO)
    assert targets.labels.tolist() == [expected]
    assert torch.isfinite(targets.offsets).all()


@pytest.mark.parametrize(
    ("boxes", "labels", "fallback", "expected"),
    [
        # Overlaps of (0.3, 0, 0.6, 1) with both default boxes: 0.2 / 0.6 and 0.1 / 0.7.
        pytest.param([(0.3, 0, 0.6, 1)], [3], 1, [3, 0], id="its best default box alone"),
        pytest.param([(0.3, 0, 0.6, 1)], [3], 2, [3, 3], id="the two that overlap it most"),
        pytest.param([(0.35, 0, 0.55, 1)], [3], 2, [3, 0], id="an overlap below 0.1 is none: 0.05 / 0.65"),
        pytest.param(
            [(0, 0, 0.5, 1), (0.4, 0, 0.7, 1)], [3, 4], 2, [3, 4], id="what another object fits is left to it"
        ),
        pytest.param([(0, 0, 0, 0)], [PADDING], 2, [0, 0], id="no object"),
    ],
)
def test_matching_of_what_no_default_box_fits(
    boxes: list[tuple[float, float, float, float]], labels: list[int], fallback: int, expected: list[int]
) -> None:
    targets = match(boxes_of(*boxes), torch.tensor([labels]), TWO, fallback=fallback)
    assert targets.labels.tolist() == [expected]


def test_matching_of_a_batch_is_that_of_each_image() -> None:
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(3, 20, 2, 2, generator=generator).sort(dim=2).values
    boxes, labels = corners.flatten(2), torch.randint(-1, 5, (3, 20), generator=generator)
    together = match(boxes, labels, DEFAULTS)
    for index in range(3):
        alone = match(boxes[index : index + 1], labels[index : index + 1], DEFAULTS)
        assert torch.equal(together.labels[index], alone.labels[0])
        positive = alone.labels[0] > 0
        assert torch.equal(together.offsets[index][positive], alone.offsets[0][positive])


def matched_one_by_one(
    boxes: torch.Tensor, labels: torch.Tensor, fallback: int
) -> tuple[list[int], dict[int, torch.Tensor]]:
    """Labels of the default boxes of one image, and the boxes of the positive ones, as the protocol has it in words."""
    corners = to_xyxy(DEFAULTS.numpy())
    classes, best, least, crowded = [0] * len(DEFAULTS), [-1.0] * len(DEFAULTS), {}, set()
    owner: dict[int, int] = {}
    overlaps = {}
    for place, label in enumerate(labels.tolist()):
        if label == PADDING:
            continue
        box = boxes[place].numpy()
        sides = np.minimum(box[2:], corners[:, 2:]) - np.maximum(box[:2], corners[:, :2])
        common, area = sides.clip(0).prod(axis=1), DEFAULTS[:, 2:].numpy().prod(axis=1)
        if label == IGNORED:
            crowded |= set(np.flatnonzero(common / area >= 0.5).tolist())
            continue
        overlaps[place] = common / ((box[2:] - box[:2]).prod() + area - common)
        least[place] = 0.5 if fallback == 1 else np.clip(np.sort(overlaps[place])[-fallback], 0.1, 0.5)
        for default, iou in enumerate(overlaps[place].tolist()):
            if iou > best[default]:
                best[default], owner[default] = iou, place
    kept = {default: place for default, place in owner.items() if best[default] >= least[place]}
    kept |= {int(iou.argmax()): place for place, iou in overlaps.items()}
    for default in crowded - set(kept):
        classes[default] = IGNORED
    for default, place in kept.items():
        classes[default] = int(labels[place])
    return classes, {default: boxes[place] for default, place in kept.items()}


@pytest.mark.parametrize("fallback", [1, 4])
def test_matching_is_what_it_is_in_words(fallback: int) -> None:
    generator = torch.Generator().manual_seed(3)
    center, size = torch.rand(4, 12, 2, generator=generator), torch.rand(4, 12, 2, generator=generator) ** 2 * 0.6
    boxes = torch.cat([(center - size / 2).clamp(0, 1), (center + size / 2).clamp(0, 1)], dim=2)
    labels = torch.randint(-1, 5, (4, 12), generator=generator)
    labels[1] = PADDING
    labels[2] = torch.where(labels[2] > 0, IGNORED, labels[2])
    boxes[3, 5:8] = boxes[3, :3]  # equal objects of different classes
    targets = match(boxes, labels, DEFAULTS, fallback=fallback)
    for index in range(4):
        expected, owned = matched_one_by_one(boxes[index], labels[index], fallback)
        assert targets.labels[index].tolist() == expected
        places = torch.tensor(sorted(owned), dtype=torch.long)
        if len(places):
            wanted = encode(torch.stack([owned[int(place)] for place in places]), DEFAULTS[places])
            torch.testing.assert_close(targets.offsets[index, places], wanted, atol=1e-5, rtol=1e-5)


def test_offsets_are_those_that_the_deployed_decoder_inverts() -> None:
    boxes = np.array([[0.1, 0.2, 0.5, 0.9], [0.0, 0.0, 1.0, 1.0]], np.float32)
    defaults = default_boxes_cxcywh()[[10, 8000]]
    got = encode(torch.from_numpy(boxes), torch.from_numpy(defaults))
    np.testing.assert_allclose(got.numpy(), encode_numpy(boxes, defaults), rtol=1e-5, atol=1e-5)


def loss_settings(**changes: Any) -> LossConfig:
    return LossConfig(
        **{
            "fallback_default_boxes": 1,
            "negatives_per_positive": 3,
            "min_negatives": 0,
            "label_smoothing": 0.0,
            "box_weight": 1.0,
            "smooth_l1_beta": 1.0,
            "teacher_weight": 1.0,
            **changes,
        }
    )


def test_loss_by_hand() -> None:
    # Two labels; logits (0, 0) give a cross-entropy of ln 2, logits (0, ln 3) one of ln 4 for background.
    conf = torch.zeros(1, 2, 5)
    conf[0, 1, 1] = np.log(3)
    loc = torch.zeros(1, 4, 5)
    labels = torch.tensor([[1, 0, 0, 0, IGNORED]])
    offsets = torch.zeros(1, 5, 4)
    offsets[0, 0] = torch.tensor([0.5, 2.0, 0.0, -1.0])  # smooth L1: 0.125 + 1.5 + 0 + 0.5
    offsets[0, 1] = 9.0  # no object: it does not count
    one = multibox_loss(loc, conf, Targets(labels, offsets), loss_settings(negatives_per_positive=1))
    assert one.boxes.item() == pytest.approx(2.125)
    assert one.classes.item() == pytest.approx(np.log(2) + np.log(4))
    three = multibox_loss(loc, conf, Targets(labels, offsets), loss_settings())
    assert three.classes.item() == pytest.approx(3 * np.log(2) + np.log(4))
    assert three.total.item() == pytest.approx(2.125 + 3 * np.log(2) + np.log(4))


def test_small_errors_of_boxes_count_more_where_the_recipe_says_so() -> None:
    loc, conf = torch.zeros(1, 4, 1), torch.zeros(1, 2, 1)
    offsets = torch.tensor([[[0.05, 0.0, 2.0, 0.0]]])  # with a beta of 0.1: 0.0125 + 1.95, in place of 0.00125 + 1.5
    targets = Targets(torch.tensor([[1]]), offsets)
    usual = multibox_loss(loc, conf, targets, loss_settings())
    sharp = multibox_loss(loc, conf, targets, loss_settings(smooth_l1_beta=0.1))
    heavy = multibox_loss(loc, conf, targets, loss_settings(smooth_l1_beta=0.1, box_weight=2.0))
    assert usual.boxes.item() == pytest.approx(1.50125)
    assert sharp.boxes.item() == pytest.approx(1.9625)
    assert heavy.boxes.item() == pytest.approx(3.925)
    assert heavy.classes.item() == usual.classes.item()


def test_loss_without_objects_is_finite_and_has_gradients() -> None:
    conf = torch.zeros(2, 3, 4, requires_grad=True)
    loc = torch.zeros(2, 4, 4, requires_grad=True)
    targets = Targets(torch.zeros(2, 4, dtype=torch.long), torch.zeros(2, 4, 4))
    nothing = multibox_loss(loc, conf, targets, loss_settings())
    assert nothing.total.item() == 0
    some = multibox_loss(loc, conf, targets, loss_settings(min_negatives=2))
    assert some.classes.item() == pytest.approx(2 * 2 * np.log(3))
    some.total.backward()
    assert conf.grad is not None
    assert torch.isfinite(conf.grad).all()


def test_taught_loss_by_hand() -> None:
    """Two default boxes of two images, of which the first is taught."""
    teacher_conf = torch.zeros(2, 2, 2)
    teacher_conf[0, 1, 0] = np.log(3)  # an object by 0.75 in the first box, by 0.5 in the second
    loc = torch.zeros(2, 4, 2)
    loc[0, 0, 0] = 2.0  # smooth L1: 1.5
    loc[1] = 9.0  # not taught: it does not count
    found = taught_loss(loc, torch.zeros(2, 2, 2), torch.zeros(2, 4, 2), teacher_conf, torch.tensor([True, False]))
    assert found.boxes.item() == pytest.approx(1.5 * 0.75 / 1.25)
    assert found.classes.item() == pytest.approx((0.75 * np.log(1.5) + 0.25 * np.log(0.5)) / 1.25)
    same = taught_loss(loc, teacher_conf, loc, teacher_conf, torch.tensor([True, True]))
    assert same.total.item() == pytest.approx(0, abs=1e-6)


def test_taught_images_are_those_of_taught_sources_only(config: Config) -> None:
    sources = replace(rectangles(4, 300), taught=torch.tensor([True, True, True, False]))
    settings = changed(config, mosaic_fraction=0.5)
    batch = Augmentation(sources, settings, torch.Generator().manual_seed(3)).batch(64)
    mosaics, singles = batch.taught[:32].float().mean().item(), batch.taught[32:].float().mean().item()
    assert 0.1 < mosaics < 0.55, "all four of a mosaic are taught in 0.75^4 of them"
    assert 0.55 < singles < 0.95
    untaught = Augmentation(rectangles(4, 300), settings, torch.Generator().manual_seed(3)).batch(8)
    assert not untaught.taught.any()


def test_a_teacher_is_kept_as_it_was_and_annotations_of_its_images_do_not_count(config: Config) -> None:
    network = start.new_network("resnet18", 3, 0)
    teacher = Teacher(network, torch.float32)
    sources = replace(rectangles(2, 300), taught=torch.tensor([True, True]))
    batch = Augmentation(sources, changed(config), torch.Generator().manual_seed(1)).batch(2)
    network.eval()
    with torch.no_grad():
        predicted = network(batch.images)
        targets = match(batch.boxes_xyxy, batch.labels, default_boxes(batch.images.device))
        assert (targets.labels > 0).any()
        same = teacher.loss(batch, predicted, targets, config.training.loss)
        assert same.total.item() == pytest.approx(0, abs=1e-3)
        for parameter in network.parameters():
            parameter.mul_(1.5)
        other = teacher.loss(batch, network(batch.images), targets, config.training.loss)
    assert other.total.item() > 0.01


@pytest.mark.parametrize(
    ("labels", "per_positive", "least", "expected"),
    [
        ([0, 0, 0, 0], 3, 0, []),
        ([0, 0, 0, 0], 3, 2, [0, 3]),
        ([1, 0, 0, 0], 1, 0, [3]),
        ([1, 0, 0, 0], 2, 0, [1, 3]),
        ([1, 0, 0, IGNORED], 2, 0, [1, 2]),
        ([1, 0, 0, 0], 100, 0, [1, 2, 3]),
    ],
)
def test_hard_negatives(labels: list[int], per_positive: int, least: int, expected: list[int]) -> None:
    entropy = torch.tensor([[0.5, 0.3, 0.1, 0.4]])
    settings = loss_settings(negatives_per_positive=per_positive, min_negatives=least)
    chosen = hard_negatives(entropy, torch.tensor([labels]), settings)
    assert chosen[0].nonzero().flatten().tolist() == expected


def test_learning_rate_warms_up_and_ends_near_zero() -> None:
    factors = [rate_factor(step, 100, 10) for step in range(100)]
    assert factors[0] == pytest.approx(0.1)
    assert factors[9] == factors[10] == 1.0
    assert factors[55] == pytest.approx(0.5)
    assert all(now >= after for now, after in pairwise(factors[10:]))
    assert 0 < factors[99] < 0.001


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


def changed(config: Config, **changes: Any) -> AugmentationConfig:
    return config.training.augmentation.model_copy(update={**dict.fromkeys(OFF, 0.0), **changes})


def rectangles(count: int, side_px: int) -> Sources:
    """Grey images with a rectangle of one colour for each class, none of which hides another."""
    rng = np.random.default_rng(5)
    pixels = np.full((count, side_px, side_px, 3), 120, np.uint8)
    boxes, labels = np.zeros((count, 2, 4), np.float32), np.tile([1, 2], (count, 1))
    for index in range(count):
        for slot, class_id in enumerate((1, 2)):
            width, height = rng.integers(side_px // 5, side_px // 3, 2)
            left = slot * side_px // 2 + rng.integers(0, side_px // 6)
            top = rng.integers(0, side_px - height)
            pixels[index, top : top + height, left : left + width] = COLOURS_RGB[class_id]
            boxes[index, slot] = np.array([left, top, left + width, top + height]) / side_px
    return Sources(
        torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous(),
        torch.from_numpy(boxes),
        torch.from_numpy(labels),
        torch.full((count,), 1 / count, dtype=torch.float64),
        torch.zeros(count, dtype=torch.bool),
    )


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


# --- Data -----------------------------------------------------------------------------------------------------------


def write_set(folder: Path, prefix: str, count: int = 4, compress: int = 6, **changes: Any) -> Source:
    """Images with a red and a blue rectangle; ``compress`` gives the same pixels another content."""
    (folder / prefix).mkdir(parents=True)
    images, annotations = [], []
    for index in range(count):
        pixels = np.full((SIDE_PX, SIDE_PX, 3), 120, np.uint8)
        places = {1: (20 + 30 * index, 30, 110, 120), 2: (150 - 20 * index, 160, 120, 100)}
        for class_id, (left, top, width, height) in places.items():
            pixels[top : top + height, left : left + width] = COLOURS_RGB[class_id]
            annotations.append({"image_id": index + 1, "category_id": class_id, "bbox": [left, top, width, height]})
        name = f"{prefix}{index}.png"
        Image.fromarray(pixels).save(folder / prefix / name, compress_level=compress)
        images.append({"id": index + 1, "file_name": name})
    categories = [{"id": 1, "name": "red"}, {"id": 2, "name": "blue"}]
    content = {"images": images, "annotations": annotations, "categories": categories, **changes}
    (folder / f"{prefix}.json").write_text(json.dumps(content))
    return Source(folder / prefix, folder / f"{prefix}.json")


def by_name(categories: Any, source: str) -> dict[int, int]:
    return class_of_category(categories, LABELS, LABELS, {}, source)


def test_bad_boxes_are_clipped_dropped_and_counted(tmp_path: Path) -> None:
    boxes = [[-30, 10, 60, 20], [10, 10, 0, 20], [400, 10, 20, 20], [10, 10, 290.5, 20], [5, 5, 20, 20]]
    annotations = [{"image_id": 1, "category_id": 1, "bbox": box} for box in boxes]
    annotations[4]["iscrowd"] = 1
    examples = load_examples(write_set(tmp_path, "a", 1, annotations=annotations), by_name, 300, skip_bad=False)
    assert (examples.problems.clipped, examples.problems.dropped) == (1, 2)
    assert examples.labels.tolist()[0] == [1, 1, IGNORED, PADDING, PADDING]
    assert examples.boxes_xyxy[0, 0].tolist() == pytest.approx([0, 10 / 300, 0.1, 0.1])
    assert examples.pixels.shape == (1, 3, 300, 300)
    assert examples.counts(3) == [0, 2, 0]


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        ({"image_id": 1, "category_id": 1, "bbox": [float("nan"), 0, 1, 1]}, "annotations.0.bbox"),
        ({"image_id": 1, "category_id": 1, "bbox": [0, 0, float("inf"), 1]}, "annotations.0.bbox"),
        ({"image_id": 1, "category_id": 1, "bbox": [0, 0, -1, 1]}, "annotations.0.bbox"),
        ({"image_id": 1, "category_id": 9, "bbox": [0, 0, 1, 1]}, "unknown categories"),
        ({"image_id": 7, "category_id": 1, "bbox": [0, 0, 1, 1]}, "unknown images"),
        ({"image_id": 1, "category_id": 1, "bbox": [0, 0, 0, 1]}, "no box of a class"),
    ],
)
def test_useless_boxes_are_refused(tmp_path: Path, annotation: dict[str, Any], words: str) -> None:
    source = write_set(tmp_path, "a", 1, annotations=[annotation])
    with pytest.raises(UserError, match=words):
        load_examples(source, by_name, 300, skip_bad=False)


def test_missing_and_damaged_images(tmp_path: Path) -> None:
    source = write_set(tmp_path, "a")
    (source.images / "a1.png").unlink()
    (source.images / "a2.png").write_bytes((source.images / "a2.png").read_bytes()[:100])
    with pytest.raises(TrainingError, match=r"2 of 4 images are missing or damaged: a1\.png \(missing\), a2\.png"):
        load_examples(source, by_name, 300, skip_bad=False)
    examples = load_examples(source, by_name, 300, skip_bad=True)
    assert examples.file_names == ("a0.png", "a3.png")
    assert len(examples.problems.bad_images) == 2


def test_missing_and_damaged_validation_images(tmp_path: Path) -> None:
    source = write_set(tmp_path, "a")
    (source.images / "a1.png").unlink()
    (source.images / "a2.png").write_bytes(b"no image")
    with pytest.raises(TrainingError, match=r"2 of 4 validation images are missing or damaged: a1\.png, a2\.png"):
        load_validation(source, by_name, LABELS, CPU, skip_bad=False)
    validation = load_validation(source, by_name, LABELS, CPU, skip_bad=True)
    assert validation.file_names == ("a0.png", "a3.png")
    assert {box.image_id for box in validation.dataset.annotations} == {1, 4}
    for image in source.images.iterdir():
        image.unlink()
    with pytest.raises(TrainingError, match="4 of 4 validation images"):
        load_validation(source, by_name, LABELS, CPU, skip_bad=True)


@pytest.mark.parametrize(
    ("names", "name_map", "expected"),
    [
        (["red", "blue"], {}, {1: 1, 2: 2}),
        (["blue", "red"], {}, {1: 2, 2: 1}),
        (["crimson", "red"], {"crimson": "red"}, {1: 1, 2: 1}),
        (["red", "tree"], {"tree": ""}, {1: 1, 2: 0}),
        (["red", "green"], {}, {1: 1, 2: 0}),
        (["red", "rad"], {}, "nearest: 'red'"),
        (["green"], {}, "expected some of the classes to train"),
    ],
)
def test_categories_by_name(names: list[str], name_map: dict[str, str], expected: dict[int, int] | str) -> None:
    categories = [Category(id=index, name=name) for index, name in enumerate(names, start=1)]
    known = (*LABELS, "green")
    if isinstance(expected, dict):
        assert class_of_category(categories, LABELS, known, name_map, "a.json") == expected
        return
    with pytest.raises(TrainingError, match=expected):
        class_of_category(categories, LABELS, known, name_map, "a.json")


def test_class_subset() -> None:
    assert choose_labels(LABELS, []) == LABELS
    assert choose_labels(LABELS, ["blue"]) == ("background", "blue")
    with pytest.raises(TrainingError, match="nearest: 'blue'"):
        choose_labels(LABELS, ["bleu"])


def test_rare_classes_and_weighted_sets_are_drawn_more(tmp_path: Path) -> None:
    red = [{"image_id": index, "category_id": 1, "bbox": [1, 1, 50, 50]} for index in (1, 2, 3, 4)]
    blue = {"image_id": 4, "category_id": 2, "bbox": [90, 90, 50, 50]}
    first = load_examples(write_set(tmp_path, "a", annotations=[*red, blue]), by_name, 300, skip_bad=False)
    second = load_examples(write_set(tmp_path, "b", 1, annotations=red[:1]), by_name, 300, skip_bad=False)
    assert draw_weights([first, second], 3, {}, rare=0.0).tolist() == pytest.approx([0.2] * 5)
    rare = draw_weights([first], 3, {}, rare=1.0).tolist()
    assert rare[3] / rare[0] == pytest.approx(2.0)  # blue is in a quarter of the images: sqrt(1 / 0.25)
    heavy = [
        Source(one.source.images, one.source.annotations, 3.0 if one is second else 1.0) for one in (first, second)
    ]
    weighted = [replace(one, source=source) for one, source in zip((first, second), heavy, strict=True)]
    assert draw_weights(weighted, 3, {}, rare=0.0)[4].item() == pytest.approx(0.75)


# --- Network --------------------------------------------------------------------------------------------------------


def test_half_safe_weights_are_the_same_function() -> None:
    torch.manual_seed(0)
    network = SSD300("resnet18", 3).eval()
    stem = network.feature_extractor.feature_extractor
    with torch.no_grad():
        stem[0].weight.mul_(500)
        stem[1].running_mean.uniform_(-300, 300)
        stem[1].running_var.uniform_(1, 120_000)
        stem[1].running_var[0] = 1e-9  # a dead channel stays as it is
    image = torch.rand(1, 3, 300, 300)
    with torch.inference_mode():
        before = network(image)
        assert stem[1].running_var.max() > LARGEST_FP16
        assert make_half_safe(network) > 0
        after = network(image)
    assert all(torch.isfinite(value.half()).all() for value in network.state_dict().values())
    for one, other in zip(before, after, strict=True):
        torch.testing.assert_close(other, one, atol=1e-3, rtol=1e-3)
    assert make_half_safe(network) == 0


def test_frozen_stages_compute_the_same_and_do_not_train() -> None:
    torch.manual_seed(0)
    network = SSD300("resnet18", 3).eval()
    image = torch.rand(1, 3, 300, 300)
    with torch.inference_mode():
        expected = network(image)
    trained = freeze(network, 2, torch.float32, dropout=0.0).eval()
    loc, conf = trained(image)
    torch.testing.assert_close(loc, expected[0], atol=1e-4, rtol=1e-4)
    (loc.sum() + conf.sum()).backward()
    layers = network.feature_extractor.feature_extractor
    assert all(one.grad is None and not one.requires_grad for one in layers[:5].parameters())
    assert all(one.grad is not None for one in layers[5].parameters())


def test_frozen_norms_compute_the_same_and_train_the_same() -> None:
    """Against batch norms in evaluation mode: outputs and gradients; the network itself keeps its norms."""
    torch.manual_seed(0)
    network = SSD300("resnet18", 3).eval()
    norms = [module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    with torch.no_grad():
        for norm in norms:
            norm.running_mean.normal_(std=0.1)
            norm.running_var.uniform_(0.5, 2)
            norm.weight.uniform_(0.5, 1.5)
            norm.bias.normal_(std=0.1)
    image = torch.rand(1, 3, 300, 300)
    answers, gradients = [], []
    for one in (network, freeze_norms(network).train()):
        loc, conf = one(image)
        (loc.square().mean() + conf.square().mean()).backward()
        answers.append((loc.detach(), conf.detach()))
        gradients.append({name: parameter.grad.clone() for name, parameter in network.named_parameters()})
        network.zero_grad()
    torch.testing.assert_close(answers[1], answers[0], atol=1e-4, rtol=1e-4)
    for name, expected in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], expected, atol=1e-4 * float(expected.abs().max()), rtol=1e-3)
    assert [module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d)] == norms
    assert int(norms[0].num_batches_tracked) == 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU to record a graph")
@pytest.mark.parametrize("frozen_norms", [True, False])
def test_a_graph_computes_and_trains_the_same(*, frozen_norms: bool) -> None:
    device = torch.device("cuda")
    network = SSD300("resnet18", 3).to(device, memory_format=torch.channels_last).train()
    trained = freeze_norms(network) if frozen_norms else network
    buffers, random_state = [one.clone() for one in network.buffers()], torch.cuda.get_rng_state()
    recorded = graphed(trained, 4, torch.bfloat16, device)
    assert all(torch.equal(*pair) for pair in zip(buffers, network.buffers(), strict=True))
    assert torch.equal(random_state, torch.cuda.get_rng_state())
    images = torch.rand(4, 3, 300, 300, device=device).contiguous(memory_format=torch.channels_last)
    answers, gradients = [], []
    for one in (trained, recorded, recorded):
        network.zero_grad(set_to_none=True)
        with torch.autocast("cuda", torch.bfloat16):
            loc, conf = one(images)
        (loc.float().square().mean() + conf.float().square().mean()).backward()
        answers.append((loc.detach().clone(), conf.detach().clone()))
        gradients.append([parameter.grad.clone() for parameter in network.parameters()])
    for again in (1, 2):
        torch.testing.assert_close(answers[again], answers[0], atol=1e-3, rtol=1e-2)
        torch.testing.assert_close(gradients[again], gradients[0], atol=1e-3, rtol=1e-2)


def test_running_average_by_hand() -> None:
    network = SSD300("resnet18", 2)
    average = RunningAverage(network, decay=0.5, warmup=True)
    bias, averaged = network.conf[0].bias, average.network.conf[0].bias
    start_value = bias[0].item()
    with torch.no_grad():
        bias.add_(1.0)
    average.update(0)  # the decay is (1 + 0) / (10 + 0)
    assert averaged[0].item() == pytest.approx(start_value + 0.9)
    average.update(1000)
    assert averaged[0].item() == pytest.approx(start_value + 0.95)
    kept = RunningAverage(network, decay=0.9, warmup=False)
    with torch.no_grad():
        bias.add_(1.0)
    kept.update(0)
    assert kept.network.conf[0].bias[0].item() == pytest.approx(start_value + 1.1)


def test_checkpoints_of_other_classes_need_new_heads(tmp_path: Path) -> None:
    trained, path = SSD300("resnet18", 5), tmp_path / "five.safetensors"
    safetensors.torch.save_file(dict(trained.state_dict()), path)
    network = start.new_network("resnet18", 3, seed=0)
    with pytest.raises(TrainingError, match=r"got 5 classes with the background, expected 3.*--new-heads"):
        start.load_checkpoint(network, path, new_heads=False)
    own_head = network.conf[0].weight.detach().clone()
    start.load_checkpoint(network, path, new_heads=True)
    assert torch.equal(network.conf[0].weight, own_head)
    assert torch.equal(network.loc[0].weight, trained.loc[0].weight)


def test_backbone_archives(tmp_path: Path) -> None:
    donor, network = SSD300("resnet18", 2), start.new_network("resnet18", 2, seed=1)
    place = {str(number): name for name, number in start.STAGE_OF.items()}
    arrays = {}
    for name, value in donor.feature_extractor.feature_extractor.state_dict().items():
        module, _, rest = name.partition(".")
        arrays[f"{place[module]}.{rest}"] = value.numpy()
    path = tmp_path / "backbone.npz"
    np.savez(path, **arrays, **{"layer4.0.conv1.weight": np.zeros(3)})
    start.load_backbone(network, path)
    assert torch.equal(
        network.feature_extractor.feature_extractor[6][0].conv1.weight,
        donor.feature_extractor.feature_extractor[6][0].conv1.weight,
    )
    np.savez(path, **{key: value for key, value in arrays.items() if key != "conv1.weight"})
    with pytest.raises(TrainingError, match="1 parameters missing"):
        start.load_backbone(network, path)
    path.write_bytes(b"PK no archive")
    with pytest.raises(TrainingError, match=r"no readable \.npz"):
        start.load_backbone(network, path)


def test_the_batch_that_fits_memory() -> None:
    # 1 GiB that every batch takes, and 0.5 GiB an image.
    used = {size: int((1 + 0.5 * size) * 2**30) for size in (2, 4, 8)}
    assert memory.largest_batch(used, 20 * 2**30) == 36
    error = memory.refusal(64, used, 20 * 2**30, "a GPU")
    assert "batch of 64" in str(error)
    assert "--batch 36" in str(error)
    assert "not even 2 images" in str(memory.refusal(64, used, 2**29, "a GPU"))
    assert "not even a few" in str(memory.refusal(64, {}, 2**29, "a GPU"))


def test_more_images_than_memory_holds_are_refused_before_they_are_read() -> None:
    # COCO's train2017: 118,287 * 3 * 352² bytes, twice.
    with pytest.raises(TrainingError, match=r"118,287 images of 352 px take 81\.9 GiB of memory, 16\.0 GiB are free"):
        memory.check_images_fit(118_287, 352, 16 * 2**30, "train2017.json")
    memory.check_images_fit(118_287, 352, 82 * 2**30, "train2017.json")
    assert 2**20 < available_memory_bytes() < 2**50


def test_a_full_disk_is_one_line_and_leaves_the_snapshot_before(tmp_path: Path) -> None:
    """A limit on the size of files fails as a full disk does, in the middle of writing."""
    network = SSD300("resnet18", len(LABELS))
    optimizer, generator = torch.optim.AdamW(network.parameters()), torch.Generator()
    state = TrainingState(network, network, optimizer, generator, CPU)
    path = tmp_path / SNAPSHOT
    save_snapshot(path, state, Record(step=7), {})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, limits[1]))
    try:
        with pytest.raises(TrainingError, match=r"cannot write to .*make room"):
            save_snapshot(path, state, Record(step=8), {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert restore_snapshot(path, state, {}).step == 7
    assert [each.name for each in tmp_path.iterdir()] == [SNAPSHOT]


# --- Whole trainings ------------------------------------------------------------------------------------------------


def tiny(config: Config, output: Path, **changes: Any) -> TrainingConfig:
    return config.training.model_copy(update={"output": output, "source_px": 300, "log_every": 1, **changes})


def two_sets(folder: Path) -> Request:
    """The validation set has the same pixels under other names and in other files, to show how well they are learnt."""
    sets = [write_set(folder, "train"), write_set(folder, "val", compress=1)]
    return Request(sets[:1], sets[1:], LABELS, LABELS, {}, Begin("resnet18"))


def test_resumed_training_is_the_same_bit_for_bit(config: Config, tmp_path: Path) -> None:
    request = two_sets(tmp_path)
    request = Request(request.training, (), LABELS, LABELS, {}, Begin("resnet18"))
    whole, parts = (
        tiny(config, tmp_path / name, steps=2, batch=2, validate_every=100, dropout=0.2) for name in ("whole", "parts")
    )
    train(request, whole, CPU)
    stopped = train(request, parts, CPU, stop_after=1)
    assert stopped.step == 1
    assert not (parts.output / WEIGHTS).exists()
    with pytest.raises(TrainingError, match="holds a training already"):
        train(request, parts, CPU)
    with pytest.raises(TrainingError, match=r"training\.seed was 0, now 1"):
        train(request, parts.model_copy(update={"seed": 1}), CPU, resume=True)
    resumed = train(request, parts, CPU, resume=True)
    assert [row.step for row in resumed.log] == [1, 2]
    one, other = (torch.load(each.output / SNAPSHOT, weights_only=True) for each in (whole, parts))
    for part in ("network", "average"):
        assert all(torch.equal(value, other[part][name]) for name, value in one[part].items())
    published = [safetensors.torch.load_file(each.output / WEIGHTS) for each in (whole, parts)]
    assert all(torch.equal(value, published[1][name]) for name, value in published[0].items())


@pytest.mark.timeout(600)  # on busy cores; under a minute alone
def test_four_images_are_learnt_by_heart(config: Config, tmp_path: Path) -> None:
    settings = tiny(
        config,
        tmp_path / "out",
        steps=32,
        batch=2,
        validate_every=32,
        frozen_stages=3,
        dropout=0.0,
        batch_norm_momentum=0.3,  # statistics of the last steps are good after few of them
        augmentation=changed(config),
        loss=loss_settings(),
        optimizer=config.training.optimizer.model_copy(
            update={"backbone_lr": 3e-3, "head_lr": 3e-3, "weight_decay": 0.0, "warmup_steps": 4, "ema_decay": 0.5}
        ),
    )
    request = two_sets(tmp_path)
    record = train(request, settings, CPU)
    assert record.best_score is not None
    assert record.best_score > 0.9
    assert record.log[-1].loss < record.log[0].loss / 10
    for name in (CARD, "log.csv", "validations.csv", "curves.png", "augmented.png", "labels.txt", SNAPSHOT):
        assert (settings.output / name).stat().st_size > 0, name
    card = (settings.output / CARD).read_text()
    assert f"{record.best_score:.3f}" in card
    network = load_network(settings.output / WEIGHTS, "resnet18", len(LABELS))
    source = request.validation[0]
    dataset = load_dataset(DatasetSource(source.images, source.annotations), LABELS)
    # The published FP16 weights through the offline reference itself.
    metrics = evaluate_network(ServedDetector(network).eval(), dataset, CPU, batch_size=2)
    assert metrics.ap == pytest.approx(record.best_score, abs=0.02)


def test_validation_images_are_never_trained_on(config: Config, tmp_path: Path) -> None:
    request = two_sets(tmp_path)
    settings = tiny(config, tmp_path / "out", steps=1, batch=2)
    same_name = Request(request.training, request.training, LABELS, LABELS, {}, Begin("resnet18"))
    with pytest.raises(TrainingError, match=r"4 of 4 images of .* are validation images: train0"):
        train(same_name, settings, CPU)
    (tmp_path / "val" / "val2.png").write_bytes((tmp_path / "train" / "train1.png").read_bytes())
    with pytest.raises(TrainingError, match=r"1 of 4 images of .* are validation images: train1\.png"):
        train(request, settings, CPU)


Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["--data"]),
        (["--data", "nowhere"], ["--data", "IMAGES ANNOTATIONS"]),
        (["--data", "nowhere", "nothing.json"], ["cannot read", "nothing.json"]),
        (["--data", "a", "b.json", "much"], ["weight 'much'"]),
        (["--data", "a", "b.json", "--classes", "carr"], ["nearest: 'car'"]),
        (["--data", "a", "b.json", "--name-map", "x"], ["NAME=LABEL"]),
        (["--data", "a", "b.json", "--new-heads"], ["--new-heads without --checkpoint"]),
        (["--taught-data", "a", "b.json"], ["--taught-data without --checkpoint"]),
    ],
)
def test_wrong_usage_is_one_line(run_main: Run, arguments: list[str], words: list[str]) -> None:
    assert_one_line_error(run_main("tools/train.py", *arguments, "--backbone", "resnet18"), *words)


def test_interrupted_training_leaves_a_whole_snapshot(config: Config, tmp_path: Path) -> None:
    source = write_set(tmp_path, "train")
    (tmp_path / "labels.txt").write_text("\n".join(LABELS))
    settings = (ROOT / "config.yml").read_text().replace("  validate_every: 500", "  validate_every: 1")
    (tmp_path / "config.yml").write_text(settings)
    arguments = [
        *("--config", tmp_path / "config.yml", "--labels-path", tmp_path / "labels.txt", "--backbone", "resnet18"),
        *("--data", source.images, source.annotations, "--output", tmp_path / "out", "--batch", "2", "--device", "cpu"),
    ]
    command = [sys.executable, str(ROOT / "tools/train.py"), *map(str, arguments)]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, start_new_session=True)
    snapshot = tmp_path / "out" / SNAPSHOT
    deadline = time.monotonic() + 90
    while not snapshot.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 130, stderr
    assert "Traceback" not in stderr
    assert torch.load(snapshot, weights_only=True)["record"]["step"] >= 1
    assert not [path.name for path in snapshot.parent.iterdir() if ".part" in path.name]
    assert not group_members(process.pid)
