"""The states shown to the driver, and their confirmation and hold."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum


class State(IntEnum):
    """State shown to the driver; higher is more urgent."""

    NO_DATA = 0
    """The road ahead is unknown; not the same as SAFE."""
    SAFE = 1
    WARN = 2
    BRAKE = 3


_ROUNDING_S = 5e-4
"""Tolerance for rounded timestamps."""


@dataclass
class _Level:
    """For how long a state has been demanded without a break, and when it was demanded last."""

    state: State
    confirm_frames: int
    frames: int = 0
    since_s: float = 0.0
    reached: bool = False
    last_s: float = 0.0


class StateMachine:
    """Hysteresis: several frames in a row must demand WARN and BRAKE, and both are held once reached.

    Confirmation needs both a count of frames and a time: the time rejects short disturbances at high frame rates, the
    count single frames at low ones. Unless it is urgent, BRAKE also needs a preceding warning.

    Args:
        warn_confirm_frames: Frames in a row that must demand WARN, at least 1.
        brake_confirm_frames: Frames in a row that must demand BRAKE, at least 1.
        confirm_time_s: Time that these frames must span.
        hold_time_s: Time for which a state is held after the last frame that demanded it.
        warning_time_s: Least duration of WARN before BRAKE.
    """

    def __init__(
        self,
        warn_confirm_frames: int,
        brake_confirm_frames: int,
        confirm_time_s: float,
        hold_time_s: float,
        warning_time_s: float,
    ) -> None:
        self._confirm_frames = {State.BRAKE: brake_confirm_frames, State.WARN: warn_confirm_frames}
        self._confirm_time_s = confirm_time_s
        self._hold_time_s = hold_time_s
        self._warning_time_s = warning_time_s
        self.reset()

    def reset(self) -> None:
        """Clear all states."""
        self._levels = tuple(_Level(*item) for item in self._confirm_frames.items())
        self._warned_since_s = math.inf

    def interrupt(self) -> None:
        """Restart confirmation after a time without data; reached states stay held."""
        for level in self._levels:
            level.frames = 0

    def update(self, time_s: float, wanted: State, kept: State, *, urgent: bool) -> State:
        """Update the state by a frame.

        Args:
            time_s: Time of the frame, later than the frame before.
            wanted: State that the frame demands.
            kept: State that the frame demands by the thresholds for leaving a state; at least ``wanted``.
            urgent: Whether BRAKE must not wait for a preceding warning.

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
                confirmed = level.frames >= level.confirm_frames and spanned
                level.reached = level.reached or (confirmed and (level.state is State.WARN or urgent or warned))
            if kept >= level.state:
                level.last_s = time_s
        state = self.held(time_s)
        self._warned_since_s = min(self._warned_since_s, time_s) if state >= State.WARN else math.inf
        return state

    def held(self, time_s: float) -> State:
        """The state held for a frame without data: BRAKE or WARN until their hold ends, else SAFE."""
        for level in self._levels:
            level.reached = level.reached and time_s - level.last_s <= self._hold_time_s
        return next((level.state for level in self._levels if level.reached), State.SAFE)
