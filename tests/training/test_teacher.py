"""Training with a teacher: its loss, and the images that it is asked about."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from ssd_triton.config import Config
from ssd_triton.training import initial_network as start
from ssd_triton.training.augmentation import Augmentation
from ssd_triton.training.device_constants import default_boxes
from ssd_triton.training.matching import match
from ssd_triton.training.teacher import Teacher, taught_loss
from tests.training.helpers import changed, rectangles


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


@pytest.mark.slow
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
