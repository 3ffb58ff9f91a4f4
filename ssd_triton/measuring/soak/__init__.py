"""A long run of good and bad requests against a real server, every answer of which is checked."""
