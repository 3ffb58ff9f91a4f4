"""A small, deterministic world to test braking in: scenarios, a simulator, and a renderer of what a camera sees."""

from ssd_triton.world.catalogue import find_scenario, scenarios
from ssd_triton.world.outcome import Run, Snapshot, judge
from ssd_triton.world.scenario import Scenario, Target, WorldError
from ssd_triton.world.simulate import simulate

__all__ = ["Run", "Scenario", "Snapshot", "Target", "WorldError", "find_scenario", "judge", "scenarios", "simulate"]
