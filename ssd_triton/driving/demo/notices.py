"""The notices in force during a run: shown, logged when they change, and counted."""

from __future__ import annotations

import logging
from collections import Counter

from ssd_triton.driving.drawing.notices import Notice, NoticeKind

_log = logging.getLogger(__name__)


class NoticeBoard:
    """Keeps the notices in force.

    Attributes:
        frames: Number of frames with each kind of notice.
    """

    def __init__(self) -> None:
        self._notices: dict[NoticeKind, Notice] = {}
        self.frames: Counter[NoticeKind] = Counter()

    @property
    def in_force(self) -> tuple[Notice, ...]:
        """The notices in force, oldest first."""
        return tuple(self._notices.values())

    def put(self, kind: NoticeKind, reason: str, figures: str = "") -> None:
        """Set or update a notice; an empty reason removes it."""
        before = self._notices.get(kind)
        if reason:
            self._notices[kind] = Notice(kind, reason, figures)
            if before is None or before.reason != reason:
                _log.warning("%s: %s", kind, self._notices[kind].text)
        elif before is not None:
            del self._notices[kind]
            _log.info("%s no longer", kind)

    def count_frame(self) -> None:
        """Count a frame for all notices in force."""
        self.frames.update(list(self._notices))
