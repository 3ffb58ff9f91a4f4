"""What a user can mend about a training."""

from __future__ import annotations

from ssd_triton.common.errors import UserError


class TrainingError(UserError):
    """Data, a checkpoint, a snapshot or the memory of the device do not allow to train."""
