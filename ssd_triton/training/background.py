"""Trainings in separate processes, one on each device at a time."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from ssd_triton.common.processes import end_children, process_pool
from ssd_triton.config import TrainingConfig
from ssd_triton.training.train import TrainingRequest, train
from ssd_triton.training.trainer import SNAPSHOT

Work = tuple[TrainingRequest, TrainingConfig, torch.device]


@contextmanager
def trainings(work: Sequence[Work]) -> Iterator[None]:
    """Train while the block runs, and wait for the trainings at its end. Trainings with a snapshot resume.

    An exception or interrupt in the block also ends the trainings.

    Args:
        work: Data, recipe and device of each.

    Raises:
        UserError: A training failed.
    """
    if not work:
        yield
        return
    with process_pool(len({device for _, _, device in work}), _log_lines) as pool:
        try:
            running = [pool.submit(_train, *one) for one in work]
            yield
            for one in running:
                one.result()
        except BaseException:
            end_children()
            raise


def _log_lines() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)


def _train(request: TrainingRequest, settings: TrainingConfig, device: torch.device) -> None:
    train(request, settings, device, resume=(settings.output / SNAPSHOT).exists())
