"""How often each training image is drawn."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ssd_triton.training.errors import TrainingError
from ssd_triton.training.examples import Examples


def draw_weights(training: Sequence[Examples], num_labels: int, often: Mapping[int, float], rare: float) -> Tensor:
    """The probability of each image, higher for images of rare and wanted classes.

    A class in a fraction f of all images is repeated max(1, sqrt(rare / f)) times, as in Gupta et al., "LVIS" (2019),
    and an image as often as its most repeated class.

    Args:
        training: All sets; the draws are divided among them in proportion to their weights.
        num_labels: Number of classes, background included.
        often: Additional factors by class id.
        rare: Fraction of images below which a class is repeated.

    Returns:
        FP64 [N], in the order of the sets, with sum 1.

    Raises:
        TrainingError: The weights of the sets have no finite sum above 0.
    """
    present = torch.cat([_present(examples, num_labels) for examples in training])
    frequency = present.double().mean(dim=0).clamp(min=1 / len(present))
    repeat = torch.sqrt(rare / frequency).clamp(min=1)
    for class_id, factor in often.items():
        repeat[class_id] *= factor
    of_image = (present * repeat).amax(dim=1).clamp(min=1)
    parts = []
    for examples, weights in zip(training, torch.split(of_image, [len(one) for one in training]), strict=True):
        share = len(examples) if examples.source.weight is None else examples.source.weight
        parts.append(weights / weights.sum() * share)
    joined = torch.cat(parts)
    total = float(joined.sum())
    if not (math.isfinite(total) and total > 0):
        raise TrainingError(f"got weights of the sets that add up to {total}, expected a sum above 0")
    return joined / total


def _present(examples: Examples, num_labels: int) -> Tensor:
    """BOOL [N, num_labels]: the classes in each image."""
    present = torch.zeros(len(examples), num_labels, dtype=torch.bool)
    present.scatter_(1, examples.labels.clamp(min=0), value=True)
    present[:, 0] = False
    return present
