"""The network in PyTorch: default boxes, ResNet backbones, SSD300 and its fused form."""
