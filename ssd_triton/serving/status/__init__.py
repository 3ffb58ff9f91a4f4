"""The state of a running server: what it serves, how busy it is, and what it has refused."""
