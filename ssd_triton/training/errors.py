"""Errors of a training that a user can correct."""

from __future__ import annotations

from ssd_triton.common.errors import UserError


class TrainingError(UserError):
    """Data, a checkpoint, a snapshot or the memory of the device make a training impossible."""
