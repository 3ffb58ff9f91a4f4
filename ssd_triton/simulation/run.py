"""The result of a simulated drive, and its judgement by the scenario's criterion."""

from __future__ import annotations

from dataclasses import dataclass

from ssd_triton.common.units import KMH_PER_MPS
from ssd_triton.driving.braking.state import State
from ssd_triton.simulation.scenario import Scenario
from ssd_triton.simulation.snapshot import Snapshot


@dataclass(frozen=True)
class Contact:
    """The ego's contact with a target.

    Attributes:
        time_s: Since the start.
        target: Index of the target in the scenario.
        impact_mps: Closing speed along the road, at least 0.
    """

    time_s: float
    target: int
    impact_mps: float


@dataclass(frozen=True)
class Run:
    """The result of a drive.

    Attributes:
        scenario: The scenario that was driven.
        seed: Seed of its noise.
        frames: The world at every frame.
        states: The controller's decision at every frame; empty without a controller.
        contact: The first contact; None without one.
        min_gap_m: Least distance between the outlines of the ego and any target; infinite without targets.
        warn_s: Time of the first frame with WARN or BRAKE; None without one.
        brake_s: Time of the first frame with BRAKE; None without one.
        ttc_at_warn_s: True time to collision with the first target at ``warn_s``.
        ttc_at_brake_s: The same at ``brake_s``.
        max_deceleration_mps2: The ego's hardest braking.
    """

    scenario: Scenario
    seed: int
    frames: tuple[Snapshot, ...]
    states: tuple[State, ...]
    contact: Contact | None
    min_gap_m: float
    warn_s: float | None
    brake_s: float | None
    ttc_at_warn_s: float | None
    ttc_at_brake_s: float | None
    max_deceleration_mps2: float

    @property
    def impact_kmh(self) -> float | None:
        """Closing speed at contact; None without one."""
        return None if self.contact is None else self.contact.impact_mps * KMH_PER_MPS

    @property
    def warning_lead_s(self) -> float | None:
        """Time from WARN to BRAKE; None without BRAKE."""
        return None if self.brake_s is None or self.warn_s is None else self.brake_s - self.warn_s


def judge(run: Run) -> list[str]:
    """List in words how a run misses its scenario's criterion; empty when it passes."""
    criterion, impact_kmh = run.scenario.criterion, run.impact_kmh
    failures = []
    if criterion.verdict == "no contact" and impact_kmh is not None:
        failures.append(f"contact at {impact_kmh:.1f} km/h, expected none")
    if criterion.verdict == "residual speed" and (impact_kmh or 0.0) > criterion.max_impact_kmh:
        failures.append(f"contact at {impact_kmh:.1f} km/h, expected at most {criterion.max_impact_kmh:g} km/h")
    if criterion.verdict == "no brake" and run.brake_s is not None:
        failures.append(f"BRAKE at {run.brake_s:.2f} s, expected none")
    lead_s, least_s = run.warning_lead_s, criterion.min_warning_lead_s
    # Frame times are multiples of 1/fps: accumulated rounding must not decide.
    if least_s is not None and lead_s is not None and lead_s < least_s - 1e-6:
        failures.append(f"warning {lead_s:.2f} s before braking, expected at least {least_s:g} s")
    return failures
