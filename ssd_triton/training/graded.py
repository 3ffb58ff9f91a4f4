"""Labels that say how sure they are: a box's class and its score in one number.

Whatever moves, cuts, hides or matches boxes passes labels on as they are; only the loss reads the score.
"""

from __future__ import annotations

from torch import Tensor

_STEP = 1 << 16
"""Labels below this are bare class ids; each multiple of it takes a thousandth off the score of 1."""
_PARTS = 1000


def graded(class_id: int, score: float | None) -> int:
    """The label of an object; without a score, as people annotate it, it is the class id.

    Args:
        class_id: From 1 on.
        score: In [0, 1], kept to three places.
    """
    return class_id if score is None else class_id + _STEP * round(_PARTS * (1 - score))


def class_ids(labels: Tensor) -> Tensor:
    """The labels without their scores, same shape; padding and ignored boxes stay as they are."""
    return labels.fmod(_STEP)


def scores(labels: Tensor) -> Tensor:
    """The scores of labels, FP32 in [0, 1] of the same shape; 1 where no detector gave one."""
    return 1 - labels.clamp(min=0).div(_STEP, rounding_mode="floor").float() / _PARTS
