"""Command lines: arguments, one call, what is printed."""
