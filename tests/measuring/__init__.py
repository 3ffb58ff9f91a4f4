"""Tests of sweeps and benchmarks, without a server."""
