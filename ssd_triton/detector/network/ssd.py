"""SSD300: six feature maps, each with a convolution for box offsets and one for class scores.

Source: NVIDIA DeepLearningExamples ``PyTorch/Detection/SSD`` (``ssd/model.py``), whose checkpoints load unchanged.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn

from ssd_triton.common.arrays import AnyArray
from ssd_triton.detector.network.boxes import FEATURE_MAPS
from ssd_triton.detector.network.resnet import FeatureExtractor

IMAGENET_MEAN_RGB = (0.485, 0.456, 0.406)
IMAGENET_STD_RGB = (0.229, 0.224, 0.225)
"""Mean and standard deviation of pixels in [0, 1], as used to train the backbone (torchvision's ImageNet weights)."""

_ADDITIONAL_CHANNELS = (256, 256, 128, 128, 128)
"""Bottleneck widths of the blocks that compute the second to sixth feature map."""


class SSD300(nn.Module):
    """The network on normalised images; see :class:`ServedDetector` for the form that is deployed."""

    def __init__(self, backbone: str = "resnet50", num_labels: int = 81) -> None:
        """Build with random weights.

        Args:
            backbone: A key of :data:`ssd_triton.detector.network.resnet.BACKBONES`.
            num_labels: Classes, background included.
        """
        super().__init__()
        self.num_labels = num_labels
        self.feature_extractor = FeatureExtractor(backbone)
        channels = self.feature_extractor.out_channels
        # The last two blocks use an unpadded convolution instead of a stride: their inputs are only 5 and 3 cells wide.
        self.additional_blocks = nn.ModuleList(
            _additional_block(in_channels, width, out_channels, stride=2 if index < 3 else 1)
            for index, ((in_channels, out_channels), width) in enumerate(
                zip(pairwise(channels), _ADDITIONAL_CHANNELS, strict=True)
            )
        )
        boxes = [level.boxes_per_cell for level in FEATURE_MAPS]
        self.loc = nn.ModuleList(nn.Conv2d(c, n * 4, 3, padding=1) for c, n in zip(channels, boxes, strict=True))
        self.conf = nn.ModuleList(
            nn.Conv2d(c, n * num_labels, 3, padding=1) for c, n in zip(channels, boxes, strict=True)
        )

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Predict offsets and class logits.

        Args:
            images: [N, 3, 300, 300] RGB, normalised by ImageNet's mean and standard deviation.

        Returns:
            ``loc`` [N, 4, 8732], offsets for :func:`ssd_triton.detector.network.boxes.decode`, and ``conf``
            [N, num_labels, 8732], logits with the background first.
        """
        maps = [self.feature_extractor(images)]
        for block in self.additional_blocks:
            maps.append(block(maps[-1]))
        # A head's channels are (output, box shape): flattening gives box shape, row, column, like the default boxes.
        batch = images.shape[0]
        loc = [head(x).reshape(batch, 4, -1) for head, x in zip(self.loc, maps, strict=True)]
        conf = [head(x).reshape(batch, self.num_labels, -1) for head, x in zip(self.conf, maps, strict=True)]
        return torch.cat(loc, 2), torch.cat(conf, 2)


def _additional_block(in_channels: int, width: int, out_channels: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, width, 1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
        nn.Conv2d(width, out_channels, 3, stride=stride, padding=1 if stride == 2 else 0, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


class ServedDetector(nn.Module):
    """The deployed network: uint8 images in, raw predictions out, normalisation included."""

    mean: Tensor
    scale: Tensor

    def __init__(self, network: SSD300) -> None:
        super().__init__()
        self.network = network
        pixel_range = 255.0
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN_RGB).view(1, 3, 1, 1) * pixel_range)
        self.register_buffer("scale", 1 / (torch.tensor(IMAGENET_STD_RGB).view(1, 3, 1, 1) * pixel_range))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """UINT8 [N, 300, 300, 3] RGB -> ``loc`` FP32 [N, 4, 8732], ``conf`` FP32 [N, num_labels, 8732].

        The cast comes before the transposition: TensorRT accepts a UINT8 input only if a cast reads it directly.
        """
        pixels = image.type_as(self.mean).permute(0, 3, 1, 2)
        loc, conf = self.network((pixels - self.mean) * self.scale)
        return loc.float(), conf.float()


def fold_batch_norms(module: nn.Module) -> None:
    """Fold every batch norm into the convolution before it, in place; the module must be in evaluation mode.

    Raises:
        ValueError: A batch norm does not follow a convolution.
    """
    replace_batch_norms(module, torch.nn.utils.fusion.fuse_conv_bn_eval)


def replace_batch_norms(module: nn.Module, fuse: Callable[[nn.Conv2d, nn.BatchNorm2d], nn.Module]) -> None:
    """Replace every convolution that a batch norm follows by one module, and the batch norm by an identity.

    The structure and the names of the convolutions are unchanged.

    Args:
        module: The module to change, in place.
        fuse: Builds the new module from the convolution and its batch norm.

    Raises:
        ValueError: A batch norm does not follow a convolution.
    """
    # Listed first: the new modules may contain convolutions and norms themselves.
    for parent in list(module.modules()):
        previous: tuple[str, nn.Module] | None = None
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.BatchNorm2d):
                if previous is None or not isinstance(previous[1], nn.Conv2d):
                    raise ValueError(f"batch norm '{name}' of {type(parent).__name__} does not follow a convolution")
                setattr(parent, previous[0], fuse(previous[1], child))
                setattr(parent, name, nn.Identity())
            previous = (name, child)


def predict(detector: ServedDetector, images_rgb: AnyArray) -> tuple[AnyArray, AnyArray]:
    """Run a detector on UINT8 [N, 300, 300, 3] RGB.

    Returns:
        ``loc`` FP32 [N, 4, 8732] and ``conf`` FP32 [N, num_labels, 8732].
    """
    with torch.inference_mode():
        loc, conf = detector(torch.from_numpy(images_rgb))
    return loc.float().numpy(), conf.float().numpy()
