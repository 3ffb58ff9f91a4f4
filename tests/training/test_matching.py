"""Matching of default boxes, against hand-made cases."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ssd_triton.detector.network.boxes import default_boxes_cxcywh, to_xyxy
from ssd_triton.detector.network.boxes import encode as encode_numpy
from ssd_triton.training.examples import IGNORED, PADDING
from ssd_triton.training.matching import encode, match
from tests.training.helpers import boxes_of

DEFAULTS = torch.from_numpy(default_boxes_cxcywh())
# Two default boxes beside each other, centre and size, so that every overlap can be worked out by hand.
TWO = torch.tensor([[0.25, 0.5, 0.5, 1.0], [0.75, 0.5, 0.5, 1.0]])


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
