"""The network at the start of a training: with weights of an ImageNet backbone or of a checkpoint, or random ones."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ssd_triton.common.errors import listing
from ssd_triton.common.files import relative_to_cwd, sha256_of
from ssd_triton.detector.network.ssd import SSD300
from ssd_triton.detector.weights.file import WeightsFile
from ssd_triton.training.errors import TrainingError

STAGE_OF = {"conv1": 0, "bn1": 1, "layer1": 4, "layer2": 5, "layer3": 6}
"""Index in the checkpoint's backbone of each module of an ImageNet ResNet, by torchvision's name."""
_BACKBONE = "feature_extractor.feature_extractor"


@dataclass(frozen=True)
class InitialWeights:
    """Weights that a training starts with.

    Attributes:
        backbone: A key of :data:`ssd_triton.detector.network.resnet.BACKBONES`.
        backbone_weights: ImageNet weights of the backbone, or None.
        checkpoint: A whole network to fine-tune, or None; at most one of the two is given.
        new_heads: Replace the checkpoint's class heads by random ones.
    """

    backbone: str
    backbone_weights: Path | None = None
    checkpoint: Path | None = None
    new_heads: bool = False

    def describe(self) -> str:
        """Describe the weights for the model card."""
        if self.checkpoint is not None:
            heads = ", with new class heads" if self.new_heads else ""
            return f"the checkpoint `{self.checkpoint.name}` (SHA-256 `{sha256_of(self.checkpoint)[:16]}`){heads}"
        if self.backbone_weights is not None:
            path = self.backbone_weights
            return f"the ImageNet backbone `{path.name}` (SHA-256 `{sha256_of(path)[:16]}`) and random new layers"
        return "random weights"


def new_network(backbone: str, num_labels: int, seed: int) -> SSD300:
    """Make a random network; additional blocks and heads as in NVIDIA DeepLearningExamples (Xavier, uniform)."""
    torch.manual_seed(seed)
    network = SSD300(backbone, num_labels)
    for part in (network.additional_blocks, network.loc, network.conf):
        _initialise(part)
    return network


def load_backbone(network: SSD300, path: Path) -> None:
    """Load the convolutions and batch norms of an ImageNet ResNet, up to conv4.

    They must expect RGB pixels normalised by ImageNet's mean and standard deviation. In weights from Caffe, the stride
    of a stage belongs to its first 1x1 convolution instead of the 3x3 one. Such weights load as well, and the stage
    adapts in training.

    Args:
        network: Changed in place.
        path: ``.npz`` (as :func:`numpy.savez` writes it), ``.safetensors`` or ``.pt``, with torchvision's names
            (``layer1.0.conv1.weight``); layers after conv4 are ignored.

    Raises:
        TrainingError: The file is not such an archive, or does not fit the backbone.
        WeightsError: A ``.safetensors`` or ``.pt`` file cannot be read.
    """
    found = _read_npz(path) if path.suffix == ".npz" else WeightsFile(path).read_state_dict()
    state = {}
    for name, value in found.items():
        module, _, rest = name.partition(".")
        if module in STAGE_OF:
            state[f"{_BACKBONE}.{STAGE_OF[module]}.{rest}"] = value
    _load(network, state, path, [name for name in network.state_dict() if name.startswith(_BACKBONE)])


def load_checkpoint(network: SSD300, path: Path, *, new_heads: bool) -> None:
    """Load a checkpoint with the parameter names of NVIDIA's published one.

    Args:
        network: Changed in place.
        path: ``.safetensors`` or ``.pt``.
        new_heads: Keep the network's own class heads, for classes that differ from the checkpoint's.

    Raises:
        WeightsError: The file cannot be read.
        TrainingError: The number of classes or the backbone differs.
    """
    state = WeightsFile(path).read_state_dict()
    head, own_head = state.get("conf.0.weight"), network.state_dict()["conf.0.weight"]
    if not new_heads and head is not None and head.shape != own_head.shape:
        per_class = len(own_head) // network.num_labels
        raise TrainingError(
            f"{relative_to_cwd(path)}: got {len(head) // per_class} classes with the background, expected "
            f"{network.num_labels}; give its own labels, or --new-heads for new class heads"
        )
    kept = [name for name in network.state_dict() if not (new_heads and name.startswith("conf."))]
    _load(network, state, path, kept)


def _initialise(part: nn.Module) -> None:
    for module in part.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def _read_npz(path: Path) -> Mapping[str, Tensor]:
    name = relative_to_cwd(path)
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {key: torch.from_numpy(archive[key]).float() for key in archive.files}
    except FileNotFoundError:
        raise TrainingError(f"backbone weights not found: {name}; give them with --backbone-weights") from None
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
        reason = " ".join(str(error).split())[:120]
        raise TrainingError(f"{name}: got no readable .npz file ({reason}), expected a backbone's arrays") from error


def _load(network: SSD300, state: Mapping[str, Tensor], path: Path, names: Sequence[str]) -> None:
    """Load all of these parameters, or raise an error that lists what does not fit."""
    own = network.state_dict()
    # An unused counter, which older checkpoints lack.
    wanted = [name for name in names if not name.endswith("num_batches_tracked")]
    missing = [name for name in wanted if name not in state]
    misshaped = [name for name in wanted if name in state and state[name].shape != own[name].shape]
    infinite = [name for name in wanted if name in state and not torch.isfinite(state[name]).all()]
    problems = [
        f"{len(found)} parameters {what} ({listing(found)})"
        for found, what in ((missing, "missing"), (misshaped, "of another shape"), (infinite, "not finite"))
        if found
    ]
    if problems:
        raise TrainingError(f"{relative_to_cwd(path)}: {'; '.join(problems)}; give other weights, or their --backbone")
    network.load_state_dict({name: state[name] for name in wanted}, strict=False)
