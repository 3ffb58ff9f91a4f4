"""The network in PyTorch: default boxes, SSD300 with ResNet backbones, and its weights."""
