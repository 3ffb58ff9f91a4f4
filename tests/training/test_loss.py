"""Loss and learning rate, against hand-made cases."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

from ssd_triton.training.examples import IGNORED
from ssd_triton.training.loss import hard_negatives, multibox_loss
from ssd_triton.training.matching import Targets
from ssd_triton.training.optimization import make_schedule
from tests.training.helpers import loss_settings


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


def learning_rates(steps: int, warmup_steps: int) -> list[float]:
    """The rates of all steps, at a peak of 1."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule, rates = make_schedule(optimizer, steps, warmup_steps), []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return rates


@pytest.mark.parametrize(
    ("steps", "warmup_steps", "expected"),
    [
        (8, 4, [0.25, 0.5, 0.75, 1, 1, 0.5 + 0.125**0.5, 0.5, 0.5 - 0.125**0.5]),  # (1 + cos 45 degrees) / 2
        (3, 0, [1, 0.75, 0.25]),
        (2, 4, [0.25, 0.5]),
        (2, 1, [1, 1]),
    ],
)
def test_learning_rates_by_hand(steps: int, warmup_steps: int, expected: list[float]) -> None:
    assert learning_rates(steps, warmup_steps) == pytest.approx(expected)


def test_learning_rate_warms_up_and_ends_near_zero() -> None:
    factors = learning_rates(100, 10)
    assert factors[0] == pytest.approx(0.1)
    assert factors[9] == factors[10] == 1.0
    assert factors[55] == pytest.approx(0.5)
    assert all(now >= after for now, after in pairwise(factors[10:]))
    assert 0 < factors[99] < 0.001
