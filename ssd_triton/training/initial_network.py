"""The network that a training begins with: an ImageNet backbone or a checkpoint, and new layers."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ssd_triton.common.errors import listing
from ssd_triton.common.files import relative_to_cwd
from ssd_triton.detector.network.ssd import SSD300
from ssd_triton.detector.weights.file import WeightsFile
from ssd_triton.training.errors import TrainingError

STAGE_OF = {"conv1": 0, "bn1": 1, "layer1": 4, "layer2": 5, "layer3": 6}
"""Places in the checkpoint's backbone of the modules of an ImageNet ResNet, by torchvision's names."""
_BACKBONE = "feature_extractor.feature_extractor"


def new_network(backbone: str, num_labels: int, seed: int) -> SSD300:
    """A network whose additional blocks and heads are random as NVIDIA DeepLearningExamples' (Xavier, uniform)."""
    torch.manual_seed(seed)
    network = SSD300(backbone, num_labels)
    for part in (network.additional_blocks, network.loc, network.conf):
        _initialise(part)
    return network


def load_backbone(network: SSD300, path: Path) -> None:
    """Take the convolutions and batch norms of an ImageNet ResNet, up to conv4.

    They must take RGB pixels normalised by ImageNet's mean and standard deviation. In weights that come from Caffe, the
    stride of a stage lies on its first 1x1 convolution, and here on the 3x3 one: such weights load as well, and the
    stage adapts as it is trained.

    Args:
        network: Takes them.
        path: ``.npz`` (as :func:`numpy.savez` writes it), ``.safetensors`` or ``.pt``, in torchvision's names
            (``layer1.0.conv1.weight``); what comes after conv4 is passed over.

    Raises:
        TrainingError: The file is no such archive, or does not fit the backbone.
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
    """Take a checkpoint in the names of NVIDIA's published one.

    Args:
        network: Takes it.
        path: ``.safetensors`` or ``.pt``.
        new_heads: Keep the network's own heads for classes, for other classes than the checkpoint's.

    Raises:
        WeightsError: The file cannot be read.
        TrainingError: It is of another number of classes or of another backbone.
    """
    state = WeightsFile(path).read_state_dict()
    head, own_head = state.get("conf.0.weight"), network.state_dict()["conf.0.weight"]
    if not new_heads and head is not None and head.shape != own_head.shape:
        per_class = len(own_head) // network.num_labels
        raise TrainingError(
            f"{relative_to_cwd(path)}: got {len(head) // per_class} classes with the background, expected "
            f"{network.num_labels}; give the labels it was trained with, or --new-heads to begin its class heads anew"
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
    """Load these parameters, all of them, or say what does not fit."""
    own = network.state_dict()
    # A counter that nothing reads here; older checkpoints lack it.
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
        raise TrainingError(
            f"{relative_to_cwd(path)}: {'; '.join(problems)}; give other weights, or the --backbone that they are of"
        )
    network.load_state_dict({name: state[name] for name in wanted}, strict=False)
