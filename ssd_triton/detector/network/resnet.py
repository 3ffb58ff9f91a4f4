"""ResNet backbones cut after conv4, in the parameter names of NVIDIA's SSD checkpoints.

Source: He et al., "Deep Residual Learning for Image Recognition" (2015), with the stride of a bottleneck on its
3x3 convolution (ResNet v1.5). The published checkpoints hold ``list(resnet.children())[:7]`` as a sequence, so the
parameters are named by position: 0 convolution, 1 batch norm, 2 ReLU, 3 pooling, 4 to 6 the stages conv2 to conv4.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn


class BasicBlock(nn.Module):
    """Two 3x3 convolutions: the block of ResNet-18 and -34."""

    expansion = 1

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = _shortcut(in_channels, channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        """[N, in, H, W] -> [N, channels, H / stride, W / stride]."""
        identity = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(x)) + identity)


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions: the block of ResNet-50, -101 and -152."""

    expansion = 4

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        out_channels = channels * self.expansion
        self.conv1 = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(in_channels, out_channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        """[N, in, H, W] -> [N, 4 * channels, H / stride, W / stride]."""
        identity = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        return torch.relu(self.bn3(self.conv3(x)) + identity)


def _shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Sequential | None:
    """A projection if the block changes the number of channels; otherwise None: the input itself is the shortcut.

    The stride does not matter: SSD sets the stride of conv4 to 1 and still has its projection.
    """
    if in_channels == out_channels:
        return None
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False), nn.BatchNorm2d(out_channels)
    )


class Backbone(NamedTuple):
    """A ResNet of one depth, and the channels of the six feature maps of the SSD300 on it."""

    block: type[BasicBlock] | type[Bottleneck]
    blocks_per_stage: tuple[int, int, int]
    out_channels: tuple[int, int, int, int, int, int]


BACKBONES = {
    "resnet18": Backbone(BasicBlock, (2, 2, 2), (256, 512, 512, 256, 256, 128)),
    "resnet34": Backbone(BasicBlock, (3, 4, 6), (256, 512, 512, 256, 256, 256)),
    "resnet50": Backbone(Bottleneck, (3, 4, 6), (1024, 512, 512, 256, 256, 256)),
    "resnet101": Backbone(Bottleneck, (3, 4, 23), (1024, 512, 512, 256, 256, 256)),
    "resnet152": Backbone(Bottleneck, (3, 8, 36), (1024, 512, 512, 256, 256, 256)),
}


class FeatureExtractor(nn.Module):
    """ResNet up to conv4 at stride 8: conv4 keeps the resolution of conv3."""

    def __init__(self, name: str) -> None:
        super().__init__()
        backbone = BACKBONES[name]
        stages: list[nn.Module] = []
        in_channels = 64
        for channels, blocks, stride in zip((64, 128, 256), backbone.blocks_per_stage, (1, 2, 1), strict=True):
            stage: list[nn.Module] = []
            for index in range(blocks):
                stage.append(backbone.block(in_channels, channels, stride if index == 0 else 1))
                in_channels = channels * backbone.block.expansion
            stages.append(nn.Sequential(*stage))
        self.out_channels = backbone.out_channels
        self.feature_extractor = nn.Sequential(
            nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2, padding=1),
            *stages,
        )

    def forward(self, x: Tensor) -> Tensor:
        """[N, 3, 300, 300] -> [N, out_channels[0], 38, 38]."""
        features: Tensor = self.feature_extractor(x)
        return features
