"""From the network in PyTorch to the artefacts that Triton loads, each checked against what it was made from."""
