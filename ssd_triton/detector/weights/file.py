"""A file of network weights: its digest, reading it and writing it."""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from ssd_triton.common.errors import WeightsError, listing
from ssd_triton.common.files import atomic_output, relative_to_cwd, sha256_of

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ssd_triton.detector.network.ssd import SSD300

StateDict: TypeAlias = "dict[str, Tensor]"
_NAMED_KEYS = 6
"""Number of keys of a wrong state dict that an error message shows."""


class WeightsFile:
    """A ``.safetensors`` or ``.pt`` file, which need not exist yet.

    A file with ``<file>.sha256`` beside it, in the format of ``sha256sum -c``, is read only if it has that digest.

    Attributes:
        path: Where it is.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._sha256: str | None = None

    @property
    def sha256(self) -> str:
        """SHA-256 as 64 lower-case hexadecimal digits, computed once; artefacts record it to identify their weights.

        Raises:
            WeightsError: The file is missing or cannot be read.
        """
        if self._sha256 is None:
            self._check_exists()
            with file_errors(self.path):
                self._sha256 = sha256_of(self.path)
        return self._sha256

    def recorded_sha256(self) -> str | None:
        """Read the digest in ``<file>.sha256``, as 64 lower-case hexadecimal digits; None without that file.

        Raises:
            WeightsError: It cannot be read, or is not one line of ``sha256sum`` about this file.
        """
        record = self.record_path
        with file_errors(record):
            if not record.exists():
                return None
            text = record.read_bytes().decode(errors="replace").strip()
        found = re.fullmatch(r"([0-9a-fA-F]{64}) [ *](.+)", text)
        if found is None or found[2] != self.path.name:
            raise WeightsError(
                f"{relative_to_cwd(record)}: got {text[:80]!r}, expected a SHA-256, two spaces and {self.path.name!r}; "
                "delete it to record the digest anew"
            )
        return found[1].lower()

    @property
    def record_path(self) -> Path:
        """``<file>.sha256``."""
        return self.path.with_name(f"{self.path.name}.sha256")

    def read_state_dict(self) -> StateDict:
        """Read a bare state dict or, from a ``.pt`` file, ``{"model": state dict}``.

        A ``module.`` prefix (``DistributedDataParallel``) is removed, and floating-point values become FP32. A ``.pt``
        is read with ``weights_only=True``: nothing in it is executed.

        Raises:
            WeightsError: The file is missing, does not have the recorded digest, is in another format, or holds
                anything but tensors.
        """
        import safetensors.torch
        import torch
        from safetensors import SafetensorError

        name = relative_to_cwd(self.path)
        self._check_exists()
        self._check_recorded()
        try:
            if self.path.suffix == ".safetensors":
                state: object = safetensors.torch.load_file(self.path)
            else:
                state = torch.load(self.path, map_location="cpu", weights_only=True)
        except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError) as error:
            reason = " ".join(str(error).split())[:160]
            raise WeightsError(f"{name}: not a readable .safetensors or .pt file ({reason}); fetch it again") from error
        if isinstance(state, dict) and isinstance(state.get("model"), dict):
            state = state["model"]
        if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
            got = sorted(map(str, state))[:_NAMED_KEYS] if isinstance(state, dict) else type(state).__name__
            raise WeightsError(f"{name}: got {got}, expected a state dict of tensors, bare or under the key 'model'")
        return {
            str(key).removeprefix("module."): value.float() if value.is_floating_point() else value
            for key, value in state.items()
        }

    def load_network(self, backbone: str, num_labels: int) -> SSD300:
        """Build a network with these weights, in FP32 and evaluation mode.

        Args:
            backbone: A key of :data:`ssd_triton.detector.network.resnet.BACKBONES`.
            num_labels: Classes, background included.

        Raises:
            WeightsError: See :meth:`read_state_dict`; or parameters are missing, unexpected, have another shape, or
                hold values that are not finite.
        """
        from ssd_triton.detector.network.ssd import SSD300

        network = SSD300(backbone, num_labels)
        state = self.read_state_dict()
        self._check_fit(state, network)
        network.load_state_dict(state, strict=False)
        return network.eval()

    def save_fp16(self, network: nn.Module, metadata: dict[str, str]) -> None:
        """Write a network's weights as FP16 ``.safetensors``; an older file is replaced only by a complete one.

        Raises:
            WeightsError: A value does not fit FP16. For example, ImageNet's stem has a batch-norm variance above FP16's
                largest value, 65,504.
        """
        import safetensors.torch
        import torch

        state = {
            key: (value.half() if value.is_floating_point() else value).contiguous()
            for key, value in network.state_dict().items()
        }
        lost = [key for key, value in state.items() if not torch.isfinite(value).all()]
        if lost:
            raise WeightsError(f"beyond the range of FP16: {listing(lost)}; rescale them before saving")
        with atomic_output(self.path) as temporary:
            safetensors.torch.save_file(state, temporary, metadata=metadata)
        self._sha256 = None

    def _check_exists(self) -> None:
        if not self.path.is_file():
            raise WeightsError(
                f"weights not found: {relative_to_cwd(self.path)}; run 'ssd-triton fetch-weights' or set "
                "weights_path in config.yml"
            )

    def _check_recorded(self) -> None:
        expected = self.recorded_sha256()
        if expected is not None and self.sha256 != expected:
            name = relative_to_cwd(self.path)
            raise WeightsError(
                f"{name}: got SHA-256 {self.sha256}, expected {expected}; run 'ssd-triton fetch-weights --output "
                f"{name}'"
            )

    def _check_fit(self, state: StateDict, network: SSD300) -> None:
        """Compare names, shapes and values with what the network expects, and report all differences at once."""
        expected = network.state_dict()
        # This counter is only used in training; older checkpoints lack it.
        missing = [key for key in expected if key not in state and not key.endswith("num_batches_tracked")]
        unexpected = [key for key in state if key not in expected and not key.endswith("num_batches_tracked")]
        misshaped = [
            f"{key} (got {list(state[key].shape)}, expected {list(expected[key].shape)})"
            for key in expected
            if key in state and state[key].shape != expected[key].shape
        ]
        not_finite = [key for key in expected if key in state and not state[key].isfinite().all()]
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
                f"{relative_to_cwd(self.path)} does not fit the network: {'; '.join(problems)}. Set backbone and "
                "labels_path in config.yml to those that the weights were trained with"
            )


@contextmanager
def file_errors(path: Path) -> Iterator[None]:
    """Turn errors of the file system into one line.

    Raises:
        WeightsError: The block raised an OSError.
    """
    try:
        yield
    except OSError as error:
        name = relative_to_cwd(path)
        raise WeightsError(
            f"{name}: {error.strerror or error}; fix that or choose another file, and run again"
        ) from error
