"""Drawing of decisions: road, objects and state."""
