"""What a user can mend about an evaluation."""

from __future__ import annotations

from ssd_triton.common.errors import UserError


class EvaluationError(UserError):
    """Annotations, images, or the kept results of an earlier run do not fit; or results cannot be written."""
