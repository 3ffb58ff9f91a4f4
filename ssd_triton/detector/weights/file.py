"""Reading and writing the network's weights."""

from __future__ import annotations

import pickle
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from ssd_triton.common.errors import WeightsError, listing
from ssd_triton.common.files import atomic_output, relative_to_cwd, sha256_of
from ssd_triton.detector.network.ssd import SSD300
from ssd_triton.detector.weights.fetch import verify_recorded

StateDict = dict[str, Tensor]

_LISTED = 6
"""Parameters named in an error before the rest is only counted."""


def load_network(path: Path, backbone: str, num_labels: int) -> SSD300:
    """Build a network in FP32 and evaluation mode, with the weights of a file.

    Raises:
        WeightsError: See :func:`read_state_dict`; or parameters are missing, unexpected or of another shape, or hold
            values that are not finite.
    """
    network = SSD300(backbone, num_labels)
    state = read_state_dict(path)
    _check_fit(path, state, network)
    network.load_state_dict(state, strict=False)
    return network.eval()


def read_state_dict(path: Path) -> StateDict:
    """Read ``.safetensors``, or a ``.pt`` file that holds ``{"model": state dict}`` or a bare state dict.

    A ``module.`` prefix (``DistributedDataParallel``) is removed, and floating-point values become FP32. A ``.pt``
    is read with ``weights_only=True``: nothing in it is executed.

    Raises:
        WeightsError: The file is missing, of another format, or holds something else than tensors.
    """
    name = relative_to_cwd(path)
    _check_exists(path)
    verify_recorded(path)
    try:
        if path.suffix == ".safetensors":
            state: object = safetensors.torch.load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:160]
        raise WeightsError(f"{name}: not a readable .safetensors or .pt file ({reason}); fetch it again") from error
    if isinstance(state, dict) and isinstance(state.get("model"), dict):
        state = state["model"]
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        got = sorted(map(str, state))[:_LISTED] if isinstance(state, dict) else type(state).__name__
        raise WeightsError(f"{name}: got {got}, expected a state dict of tensors, bare or under the key 'model'")
    return {
        str(key).removeprefix("module."): value.float() if value.is_floating_point() else value
        for key, value in state.items()
    }


def digest(path: Path) -> str:
    """SHA-256 of a weights file, by which artefacts are tied to it.

    Raises:
        WeightsError: The file is missing.
    """
    _check_exists(path)
    return sha256_of(path)


def save_fp16(network: nn.Module, path: Path, metadata: dict[str, str]) -> None:
    """Write a network's weights as FP16 ``.safetensors``.

    Raises:
        WeightsError: A value does not survive the cast; ImageNet's stem, for one, has a batch-norm variance above
            FP16's 65,504.
    """
    state = {
        key: (value.half() if value.is_floating_point() else value).contiguous()
        for key, value in network.state_dict().items()
    }
    lost = [key for key, value in state.items() if not torch.isfinite(value).all()]
    if lost:
        raise WeightsError(f"beyond the range of FP16: {listing(lost)}; rescale them before saving")
    with atomic_output(path) as temporary:
        safetensors.torch.save_file(state, temporary, metadata=metadata)


def _check_exists(path: Path) -> None:
    if not path.is_file():
        raise WeightsError(
            f"weights not found: {relative_to_cwd(path)}; run 'python tools/fetch_weights.py' or set weights_path in "
            "config.yml"
        )


def _check_fit(path: Path, state: StateDict, network: SSD300) -> None:
    """Compare names, shapes and values with what the network expects, and report every difference at once."""
    expected = network.state_dict()
    # A counter that only training reads; older checkpoints lack it.
    missing = [key for key in expected if key not in state and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in state if key not in expected and not key.endswith("num_batches_tracked")]
    misshaped = [
        f"{key} (got {list(state[key].shape)}, expected {list(expected[key].shape)})"
        for key in expected
        if key in state and state[key].shape != expected[key].shape
    ]
    not_finite = [key for key in expected if key in state and not torch.isfinite(state[key]).all()]
    problems = [
        f"{len(keys)} {kind}: {listing(keys)}"
        for kind, keys in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("of another shape", misshaped),
            ("not finite", not_finite),
        )
        if keys
    ]
    if problems:
        raise WeightsError(
            f"{relative_to_cwd(path)} does not fit the network: {'; '.join(problems)}. Set backbone and labels_path "
            "in config.yml to those that the weights were trained with"
        )
