"""Errors of engines and of their sources."""

from __future__ import annotations

from ssd_triton.common.errors import UserError


class EngineError(UserError):
    """An engine cannot be built, or is not the one that is expected."""
