"""The notices in force during a run: shown, logged when they begin and end, and counted."""

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
        self._notices: dict[NoticeKind, str] = {}
        self.frames: Counter[NoticeKind] = Counter()

    @property
    def in_force(self) -> tuple[Notice, ...]:
        """The notices in force, oldest first."""
        return tuple(Notice(kind, text) for kind, text in self._notices.items())

    def put(self, kind: NoticeKind, text: str) -> None:
        """Put up a notice, or change its text; an empty text takes it down."""
        if text and kind not in self._notices:
            _log.warning("%s: %s", kind, text)
        elif not text and kind in self._notices:
            _log.info("%s no longer", kind)
            del self._notices[kind]
        if text:
            self._notices[kind] = text

    def count_frame(self) -> None:
        """Count a frame for all notices in force."""
        self.frames.update(list(self._notices))
