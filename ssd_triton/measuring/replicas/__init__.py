"""Runs replicas of the server behind a proxy or a balancing client, and takes one away under traffic."""
