"""The error of sweeps and their reports that a user can correct."""

from __future__ import annotations

from ssd_triton.common.errors import UserError


class SweepError(UserError):
    """A sweep's file, its variants or its results are invalid."""
