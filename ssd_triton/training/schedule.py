"""Learning rates over a training: a linear warm-up, then a cosine to zero."""

from __future__ import annotations

from math import cos, pi


def rate_factor(step: int, steps: int, warmup_steps: int) -> float:
    """The part of the peak learning rate that a step takes.

    Source: Loshchilov and Hutter, "SGDR" (2017), without restarts; Goyal et al. (2017) for the warm-up.

    Args:
        step: From 0.
        steps: Of the whole training.
        warmup_steps: The first ones; the last of them takes the whole rate.
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    return 0.5 * (1 + cos(pi * (step - warmup_steps) / max(steps - warmup_steps, 1)))
