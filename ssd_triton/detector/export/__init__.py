"""From the network in PyTorch to the files that Triton loads, each checked against its source."""
