"""Controls the playback of a drive: when the next frame is due, pause, step, speed."""

from __future__ import annotations

import threading
import time
from typing import Any, Literal

SPEEDS = (0.25, 0.5, 1.0, 2.0, 0.0)
"""Speeds to choose from; 0 is as fast as the detector answers."""
_LATE_S = 0.25
"""A drive that is later than this does not catch up: its clock is set back."""

Next = Literal["frame", "restart", "close"]


class Player:
    """Playback controls of one drive; threads may share it.

    Attributes:
        paused: Whether the drive is paused, and waits for a step.
        speed: Speed, one of :data:`SPEEDS`.
        closed: Whether the drive must end.
    """

    def __init__(self) -> None:
        self.paused = False
        self.speed = 1.0
        self._steps = 0
        self._restarts = False
        self.closed = False
        self._anchor: tuple[float, float] | None = None
        self._changed = threading.Condition()

    def control(self, command: dict[str, Any]) -> None:
        """Execute a command from a browser; unknown commands are ignored.

        Args:
            command: ``{"do": "pause" | "play" | "step" | "restart"}`` or ``{"do": "speed", "speed": 0.5}``.
        """
        with self._changed:
            what = command.get("do")
            if what in ("pause", "play"):
                self.paused = what == "pause"
            elif what == "step":
                self.paused = True
                self._steps = 1
            elif what == "restart":
                self._restarts, self.paused = True, False
            elif what == "speed" and command.get("speed") in SPEEDS:
                self.speed = float(command["speed"])
            self._anchor = None
            self._changed.notify_all()

    def close(self) -> None:
        """End the drive."""
        with self._changed:
            self.closed = True
            self._changed.notify_all()

    def wait(self, time_s: float) -> Next:
        """Wait until a frame is due, or a command arrives.

        Args:
            time_s: Time of the frame in its clip; infinite after the last one.

        Returns:
            What to do next.
        """
        with self._changed:
            while True:
                if self.closed:
                    return "close"
                if self._restarts:
                    self._restarts, self._anchor = False, None
                    return "restart"
                patience_s = self._patience_s(time_s)
                if patience_s is not None and patience_s <= 0:
                    self._steps = 0
                    return "frame"
                self._changed.wait(patience_s)

    def _patience_s(self, time_s: float) -> float | None:
        """Return the seconds until the frame is due; None waits for a command."""
        now_s = time.monotonic()
        if time_s == float("inf"):
            return None
        if self.paused:
            return 0.0 if self._steps else None
        if not self.speed:
            return 0.0
        if self._anchor is None:
            self._anchor = (now_s, time_s)
        patience_s = self._anchor[0] + (time_s - self._anchor[1]) / self.speed - now_s
        if patience_s < -_LATE_S:
            self._anchor = (now_s, time_s)
        return patience_s
