"""Load on a server or a detector, and reports of it."""
