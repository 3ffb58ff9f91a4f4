"""SSD300 for NVIDIA's GPUs: one cuDNN call for each convolution with its bias, addition and ReLU.

What is fused, and why it is faster on tensor cores:

- Batch norms are folded into the convolutions, in FP32, before anything is cast.
- ``aten::cudnn_convolution_relu`` and ``aten::cudnn_convolution_add_relu`` are cuDNN's fused engines. They apply bias,
  shortcut and ReLU to the accumulator and write no intermediate map.
- The stem takes 2 x 2 blocks of pixels as 16 channels (RGB and a constant for each of four pixels) and becomes a 4 x 4
  convolution of stride 1: tensor cores need multiples of 8 channels, and RGB has 3. The weights include the
  normalisation; those of the constant channel subtract the mean. At the border the constant is 0, like the padding.
- The location and confidence heads of a map are one convolution, its output channels padded to a multiple of 8.
- PyTorch adds the bias of a plain convolution in a separate kernel. The bias of a projection is moved into the
  convolution that adds the shortcut; the bias of a head is added while its output is cast and laid out for the server.

TorchScript compiles this module; it evaluates annotations, so ``from __future__ import annotations`` cannot be used. On
a CPU, the module computes the same with ``conv2d``.
"""

import copy
from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssd_triton.detector.network.boxes import FEATURE_MAPS, IMAGE_SIZE_PX
from ssd_triton.detector.network.resnet import BasicBlock, Bottleneck
from ssd_triton.detector.network.ssd import ServedDetector, fold_batch_norms

_CHANNEL_MULTIPLE = 8
"""FP16 tensor-core kernels read channels in groups of 8 (cuDNN's NHWC layout, 16 bytes)."""
_GREY = 128
"""Subtracted from pixels to keep them small in FP16; the weight of the constant subtracts the rest of the mean."""


class _Conv(nn.Module):
    """A convolution with bias and ReLU."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        if conv.bias is None:
            raise ValueError("expected a convolution with a bias: fold the batch norms first")
        self.weight = nn.Parameter(conv.weight.detach().clone(), requires_grad=False)
        self.bias = nn.Parameter(conv.bias.detach().clone(), requires_grad=False)
        self.stride = [int(side) for side in conv.stride]
        self.padding = [int(side) for side in conv.padding]

    def forward(self, x: Tensor) -> Tensor:
        if x.is_cuda:
            return torch.cudnn_convolution_relu(x, self.weight, self.bias, self.stride, self.padding, [1, 1], 1)
        return F.relu(F.conv2d(x, self.weight, self.bias, self.stride, self.padding))


class _ConvAdd(_Conv):
    """The last convolution of a residual block."""

    def forward(self, x: Tensor, shortcut: Tensor) -> Tensor:  # type: ignore[override]
        if x.is_cuda:
            return torch.cudnn_convolution_add_relu(
                x, self.weight, shortcut, 1.0, self.bias, self.stride, self.padding, [1, 1], 1
            )
        return F.relu(F.conv2d(x, self.weight, self.bias, self.stride, self.padding) + shortcut)


class _ResidualBlock(nn.Module):
    """Either kind of residual block: a chain of convolutions; the last one adds the shortcut."""

    def __init__(self, block: BasicBlock | Bottleneck) -> None:
        super().__init__()
        convs = [block.conv1, block.conv2, *([block.conv3] if isinstance(block, Bottleneck) else [])]
        self.chain = nn.Sequential(*(_Conv(conv) for conv in convs[:-1]))
        self.last = _ConvAdd(convs[-1])
        self.projection: nn.Module = nn.Identity()
        if block.downsample is not None:
            projection = block.downsample[0]
            if not isinstance(projection, nn.Conv2d) or projection.bias is None:
                raise ValueError("expected a projection with a bias: fold the batch norms first")
            self.last.bias.data.add_(projection.bias)
            projection.bias = None
            self.projection = projection

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.chain(x), self.projection(x))  # type: ignore[no-any-return]


class _Head(nn.Module):
    """The location and confidence heads of one feature map as one convolution."""

    loc_bias: Tensor
    conf_bias: Tensor

    def __init__(self, loc: nn.Conv2d, conf: nn.Conv2d, boxes_per_cell: int) -> None:
        super().__init__()
        if loc.bias is None or conf.bias is None:
            raise ValueError("expected heads with biases")
        weight = torch.cat([loc.weight, conf.weight])
        padding = -len(weight) % _CHANNEL_MULTIPLE
        self.weight = nn.Parameter(F.pad(weight, (0, 0, 0, 0, 0, 0, 0, padding)).detach(), requires_grad=False)
        self.boxes_per_cell = boxes_per_cell
        # Buffers stay in FP32, like the outputs; parameters are cast.
        self.register_buffer("loc_bias", loc.bias.detach().view(4, boxes_per_cell, 1, 1))
        self.register_buffer("conf_bias", conf.bias.detach().view(-1, boxes_per_cell, 1, 1))

    def forward(self, x: Tensor, loc: Tensor, conf: Tensor) -> None:
        """Write the predictions of this map into its part of the outputs, [N, 4, boxes] and [N, num_labels, boxes]."""
        n, labels, height, width = x.shape[0], conf.shape[1], x.shape[2], x.shape[3]
        boxes = self.boxes_per_cell
        y = F.conv2d(x, self.weight, None, padding=1)
        offsets = y[:, : 4 * boxes].view(n, 4, boxes, height, width)
        logits = y[:, 4 * boxes : (4 + labels) * boxes].view(n, labels, boxes, height, width)
        torch.add(offsets, self.loc_bias, out=loc.view(n, 4, boxes, height, width))
        torch.add(logits, self.conf_bias, out=conf.view(n, labels, boxes, height, width))


class FusedDetector(nn.Module):
    """The served detector, fused: the same outputs as :class:`~ssd_triton.detector.network.ssd.ServedDetector`."""

    frame: Tensor

    def __init__(self, detector: ServedDetector, dtype: torch.dtype) -> None:
        """Fuse a detector.

        Args:
            detector: In FP32 and evaluation mode, with batch norms; it is not changed.
            dtype: Dtype of weights and activations; outputs are FP32.
        """
        super().__init__()
        folded = copy.deepcopy(detector)
        fold_batch_norms(folded)
        network = folded.network
        layers = network.feature_extractor.feature_extractor
        self.num_labels = network.num_labels
        self.stem = _Conv(_stem_on_blocks(layers[0], folded.mean.flatten(), folded.scale.flatten()))  # type: ignore[arg-type]
        self.stages = nn.Sequential(*(_ResidualBlock(block) for stage in layers[4:] for block in stage))  # type: ignore[attr-defined]
        self.additional_blocks = nn.ModuleList(
            nn.Sequential(_Conv(block[0]), _Conv(block[3]))  # type: ignore[index]
            for block in network.additional_blocks
        )
        self.heads = nn.ModuleList(
            _Head(loc, conf, level.boxes_per_cell)  # type: ignore[arg-type]
            for loc, conf, level in zip(network.loc, network.conf, FEATURE_MAPS, strict=True)
        )
        self.ends = list(accumulate(level.cells**2 * level.boxes_per_cell for level in FEATURE_MAPS))
        self.blocks = IMAGE_SIZE_PX // 2 + 3
        self.register_buffer("frame", _frame(2 * self.blocks))
        for parameter in self.parameters():
            layout = torch.channels_last if parameter.dim() == 4 else torch.contiguous_format
            parameter.data = parameter.data.to(dtype, memory_format=layout)
        self.requires_grad_(False).eval()

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """UINT8 [N, 300, 300, 3] RGB -> ``loc`` FP32 [N, 4, 8732], ``conf`` FP32 [N, num_labels, 8732]."""
        n = image.shape[0]
        loc = torch.empty([n, 4, self.ends[-1]], dtype=torch.float32, device=image.device)
        conf = torch.empty([n, self.num_labels, self.ends[-1]], dtype=torch.float32, device=image.device)
        x = self.stages(F.max_pool2d(self.stem(self._blocks(image)), 3, 2, 1))
        maps = [x]
        for block in self.additional_blocks:
            x = block(x)
            maps.append(x)
        start = 0
        for index, head in enumerate(self.heads):
            end = self.ends[index]
            head(maps[index], loc[:, :, start:end], conf[:, :, start:end])
            start = end
        return loc, conf

    def _blocks(self, image: Tensor) -> Tensor:
        """UINT8 [N, 300, 300, 3] -> [N, 16, 153, 153]: blocks of four pixels, RGB and a constant each.

        Two blocks of padding come before the image and one after it. Padding is 0 in all channels; grey is subtracted
        from the pixels.
        """
        n = image.shape[0]
        pixels = self.frame.repeat(n, 1, 1, 1)
        inside = pixels[:, 4 : 4 + image.shape[1], 4 : 4 + image.shape[2], :3]
        # Flipping the highest bit of a byte and reading it as signed subtracts 128, the grey.
        inside.copy_(torch.bitwise_xor(image, 128))
        blocks = pixels.view(n, self.blocks, 2, self.blocks, 2, 4).permute(0, 1, 3, 2, 4, 5)
        cast = blocks.to(self.stem.weight.dtype, memory_format=torch.contiguous_format)
        return cast.flatten(3).permute(0, 3, 1, 2)


def _frame(size: int) -> Tensor:
    """The frame around an image: INT8 [1, size, size, 4], 0 except for the constant 1 in the image's fourth channel."""
    frame = torch.zeros((1, size, size, 4), dtype=torch.int8)
    frame[:, 4 : 4 + IMAGE_SIZE_PX, 4 : 4 + IMAGE_SIZE_PX, 3] = 1
    return frame


def _stem_on_blocks(conv: nn.Conv2d, mean: Tensor, scale: Tensor) -> nn.Conv2d:
    """The 7 x 7 stem of stride 2 on normalised pixels, as a 4 x 4 convolution on blocks of raw pixels.

    Row r of the window of output i is input row 2 i - 3 + r. Row d of block b, counted from i - 2, is input row
    2 (i - 2 + b) + d: hence r = 2 b + d - 1, and likewise for columns.
    """
    if conv.bias is None:
        raise ValueError("expected a convolution with a bias: fold the batch norms first")
    scaled = conv.weight * scale.view(1, 3, 1, 1)
    constant = -(scaled * (mean.view(1, 3, 1, 1) - _GREY)).sum(1, keepdim=True)
    weight = F.pad(torch.cat([scaled, constant], 1), (1, 0, 1, 0))  # [out, 4, 8, 8], index 2 b + d
    out = weight.shape[0]
    weight = weight.view(out, 4, 4, 2, 4, 2).permute(0, 3, 5, 1, 2, 4).reshape(out, 16, 4, 4)
    on_blocks = nn.Conv2d(16, out, 4)
    on_blocks.weight = nn.Parameter(weight.contiguous())
    on_blocks.bias = conv.bias
    return on_blocks
