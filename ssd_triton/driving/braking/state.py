"""What the driver is told, and how a state is confirmed and held."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum


class State(IntEnum):
    """What the driver is told; the higher, the more urgent."""

    NO_DATA = 0
    """Nothing can be said about the road ahead, which is not the same as SAFE."""
    SAFE = 1
    WARN = 2
    BRAKE = 3


_ROUNDING_S = 5e-4
"""Timestamps are rounded: this much less than the time asked for is that time."""


@dataclass
class _Level:
    """How long a state has been called for without a break, and when it was called for last."""

    state: State
    frames: int = 0
    since_s: float = 0.0
    reached: bool = False
    last_s: float = 0.0


class StateMachine:
    """Hysteresis: WARN and BRAKE must be called for by several frames in a row, and are held once reached.

    Both a count of frames and a time are asked for, so that a high frame rate does not let a short disturbance
    through, nor a low one a single frame.

    BRAKE must have been warned of for a while, too, unless it is urgent.

    Args:
        confirm_frames: Frames in a row that must call for a state, at least 1.
        confirm_time_s: Time that these frames must span.
        hold_time_s: How long a state is kept after the last frame that called for it.
        warning_time_s: How long WARN must have been told before BRAKE.
    """

    def __init__(self, confirm_frames: int, confirm_time_s: float, hold_time_s: float, warning_time_s: float) -> None:
        self._confirm_frames = confirm_frames
        self._confirm_time_s = confirm_time_s
        self._hold_time_s = hold_time_s
        self._warning_time_s = warning_time_s
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self._levels = (_Level(State.BRAKE), _Level(State.WARN))
        self._warned_since_s = math.inf

    def interrupt(self) -> None:
        """Begin to confirm anew, after a time in which nothing was seen; what was reached is held as before."""
        for level in self._levels:
            level.frames = 0

    def update(self, time_s: float, wanted: State, kept: State, *, urgent: bool) -> State:
        """Take in a frame.

        Args:
            time_s: When the frame was taken, later than the frame before.
            wanted: What the frame calls for.
            kept: What the frame calls for by the thresholds at which a state is left; at least ``wanted``.
            urgent: Whether BRAKE must not wait for the warning to have been heard.

        Returns:
            SAFE, WARN or BRAKE.
        """
        warned = time_s - self._warned_since_s >= self._warning_time_s - _ROUNDING_S
        for level in self._levels:
            if wanted < level.state and kept < level.state:
                level.frames = 0
            elif wanted >= level.state:
                level.since_s = level.since_s if level.frames else time_s
                level.frames += 1
                spanned = time_s - level.since_s >= self._confirm_time_s - _ROUNDING_S
                confirmed = level.frames >= self._confirm_frames and spanned
                level.reached = level.reached or (confirmed and (level.state is State.WARN or urgent or warned))
            if kept >= level.state:
                level.last_s = time_s
        state = self.held(time_s)
        self._warned_since_s = min(self._warned_since_s, time_s) if state >= State.WARN else math.inf
        return state

    def held(self, time_s: float) -> State:
        """The state that still holds when a frame tells nothing: BRAKE or WARN until their hold ends, else SAFE."""
        for level in self._levels:
            level.reached = level.reached and time_s - level.last_s <= self._hold_time_s
        return next((level.state for level in self._levels if level.reached), State.SAFE)
