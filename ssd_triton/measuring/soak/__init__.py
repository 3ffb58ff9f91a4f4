"""Soak test: a long run of good and bad requests against a real server, with every answer checked."""
