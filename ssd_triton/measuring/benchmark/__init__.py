"""Measures latency and throughput of every variant without a server, in turns."""
