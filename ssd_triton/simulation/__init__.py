"""A deterministic driving simulator: scenarios, closed-loop simulation, and a renderer of the camera's image."""

from ssd_triton.simulation.catalogue import find_scenario, scenarios
from ssd_triton.simulation.run import Run, judge
from ssd_triton.simulation.scenario import Scenario, SimulationError, Target
from ssd_triton.simulation.simulate import simulate
from ssd_triton.simulation.snapshot import Snapshot

__all__ = [
    "Run",
    "Scenario",
    "SimulationError",
    "Snapshot",
    "Target",
    "find_scenario",
    "judge",
    "scenarios",
    "simulate",
]
