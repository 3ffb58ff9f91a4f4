"""The ranges at which an object that stands in the corridor would call for WARN and for BRAKE."""

from __future__ import annotations

from dataclasses import dataclass

from ssd_triton.config import BrakingConfig
from ssd_triton.driving.braking.decision import FrameDecision


@dataclass(frozen=True)
class Zones:
    """Ranges from the camera, in metres."""

    brake_m: float
    warn_m: float


def trigger_ranges(decision: FrameDecision, settings: BrakingConfig) -> Zones | None:
    """How far ahead a standing object would be warned of and braked for, at this frame's speed.

    The way until the car stands: v·t of latency, reaction and confirmation, and v²/2a; WARN by
    ``warning_lead_time_s`` earlier.

    Returns:
        None when the speed is not known: then there are no such ranges.
    """
    speed_mps = decision.ego.speed_mps
    if speed_mps is None:
        return None
    delay_s = decision.latency_s + settings.reaction_time_s + settings.confirm_time_s
    stop_m = speed_mps * delay_s + speed_mps**2 / (2 * settings.deceleration_mps2)
    brake_m = settings.front_overhang_m + stop_m
    return Zones(brake_m, brake_m + speed_mps * settings.warning_lead_time_s)
