"""Several replicas of the server: a proxy in front of them, traffic, and taking one away."""
