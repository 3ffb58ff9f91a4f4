"""Pictures of the simulated world."""
