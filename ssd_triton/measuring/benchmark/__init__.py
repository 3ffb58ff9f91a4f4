"""The detector without a server: latency and throughput of every variant, measured in turns."""
