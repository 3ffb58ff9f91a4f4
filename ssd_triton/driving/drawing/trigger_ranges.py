"""Trigger ranges: where a stationary object in the corridor triggers WARN and BRAKE."""

from __future__ import annotations

from dataclasses import dataclass

from ssd_triton.config import BrakingConfig
from ssd_triton.driving.braking.decision import FrameDecision


@dataclass(frozen=True)
class TriggerRanges:
    """Ranges from the camera, in metres."""

    brake_m: float
    warn_m: float


def trigger_ranges(decision: FrameDecision, settings: BrakingConfig) -> TriggerRanges | None:
    """Trigger ranges at a frame's speed.

    BRAKE triggers at the stopping distance: v·t for the decision's delay, plus v²/2a. WARN triggers
    earlier by ``warning_lead_time_s``.

    Returns:
        None when the speed is unknown.
    """
    speed_mps = decision.ego.speed_mps
    if speed_mps is None:
        return None
    stop_m = speed_mps * decision.delay_s + speed_mps**2 / (2 * settings.deceleration_mps2)
    brake_m = settings.front_overhang_m + stop_m
    return TriggerRanges(brake_m, brake_m + speed_mps * settings.warning_lead_time_s)
