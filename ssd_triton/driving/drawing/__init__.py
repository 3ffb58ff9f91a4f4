"""Pictures of decisions: the road, the objects, the state."""
