"""Errors of an evaluation that a user can correct."""

from __future__ import annotations

from ssd_triton.common.errors import UserError


class EvaluationError(UserError):
    """Annotations, images, or the kept results of an earlier run do not fit; or results cannot be written."""
