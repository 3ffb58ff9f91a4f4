"""The ego's brakes, and the pitch of its body."""

from __future__ import annotations

import math

from ssd_triton.config import BrakesConfig, EgoPitchConfig


class Brakes:
    """Brakes with a dead time and a ramp to full deceleration; released, they ramp back at the same rate.

    Args:
        settings: Times and maximum.

    Attributes:
        deceleration_mps2: Present deceleration, at least 0.
    """

    def __init__(self, settings: BrakesConfig) -> None:
        self._settings = settings
        self._demanded_s = 0.0
        self.deceleration_mps2 = 0.0

    def advance(self, demanded: bool, dt_s: float) -> None:
        """Advance by a time step with or without a demand to brake."""
        self._demanded_s = self._demanded_s + dt_s if demanded else 0.0
        settings = self._settings
        change = settings.max_deceleration_mps2 / settings.build_up_s * dt_s
        if self._demanded_s > settings.dead_time_s:
            self.deceleration_mps2 = min(self.deceleration_mps2 + change, settings.max_deceleration_mps2)
        elif not demanded:
            self.deceleration_mps2 = max(self.deceleration_mps2 - change, 0.0)


class EgoPitch:
    """Pitch of the body on its springs: a damped oscillator that braking pushes nose-down.

    Args:
        settings: Pitch per deceleration, frequency and damping.

    Attributes:
        pitch_deg: Present pitch; positive looks down.
    """

    def __init__(self, settings: EgoPitchConfig) -> None:
        self._settings = settings
        self._rate_deg_s = 0.0
        self.pitch_deg = 0.0

    def advance(self, deceleration_mps2: float, dt_s: float) -> None:
        """Advance by a time step under a deceleration: one semi-implicit Euler step."""
        angular = 2 * math.pi * self._settings.frequency_hz
        rest_deg = self._settings.deg_per_mps2 * deceleration_mps2
        pull = angular**2 * (rest_deg - self.pitch_deg) - 2 * self._settings.damping * angular * self._rate_deg_s
        self._rate_deg_s += pull * dt_s
        self.pitch_deg += self._rate_deg_s * dt_s
