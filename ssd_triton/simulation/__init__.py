"""A small, deterministic world to test braking in: scenarios, a simulator, and a renderer of what a camera sees."""

from ssd_triton.simulation.catalogue import find_scenario, scenarios
from ssd_triton.simulation.outcome import Run, Snapshot, judge
from ssd_triton.simulation.scenario import Scenario, Target, WorldError
from ssd_triton.simulation.simulate import simulate

__all__ = ["Run", "Scenario", "Snapshot", "Target", "WorldError", "find_scenario", "judge", "scenarios", "simulate"]
