"""What a user can mend about a sweep or its report."""

from __future__ import annotations

from ssd_triton.common.errors import UserError


class SweepError(UserError):
    """A sweep's file, its variants or its results are not what they should be."""
