"""The whole state of a training in one file, from which it resumes exactly."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from torch.optim.lr_scheduler import LRScheduler

from ssd_triton.common.files import atomic_output, relative_to_cwd
from ssd_triton.detector.network.ssd import SSD300
from ssd_triton.training.errors import TrainingError
from ssd_triton.training.history import Record

_FORMAT = 2
_LISTED = 3
_OF_TORCH_SAVE = ("PytorchStreamWriter", "inline_container", "iostream error")
"""Messages of the RuntimeError that PyTorch's archive writer raises contain one of these."""


@dataclass(frozen=True)
class TrainingState:
    """Everything that changes in training, except the figures and the number of steps.

    Attributes:
        network: The trained weights.
        average: Their running average.
        optimizer: The optimizer, with its moments.
        schedule: Its learning rates.
        generator: Randomness of augmentation and of the choice of images.
        device: The device; dropout uses its default generator.
    """

    network: SSD300
    average: SSD300
    optimizer: torch.optim.Optimizer
    schedule: LRScheduler
    generator: torch.Generator
    device: torch.device


def save_snapshot(path: Path, state: TrainingState, record: Record, fingerprint: Mapping[str, str]) -> None:
    """Replace the snapshot atomically: the file is complete at any time.

    Raises:
        TrainingError: It cannot be written; the previous one is kept.
    """
    content = {
        "format": _FORMAT,
        "fingerprint": dict(fingerprint),
        "record": record.to_dict(),
        "network": _plain(state.network),
        "average": _plain(state.average),
        "optimizer": state.optimizer.state_dict(),
        "schedule": state.schedule.state_dict(),
        "generator": state.generator.get_state(),
        "host_generator": torch.get_rng_state(),
        "device_generator": torch.cuda.get_rng_state(state.device) if state.device.type == "cuda" else None,
    }
    with writing(path.parent), atomic_output(path) as temporary:
        torch.save(content, temporary)


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Report a failure to write, such as a full disk, as a user error.

    Raises:
        TrainingError: A file in the folder could not be written.
    """
    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:
        if type(error) is RuntimeError and not any(part in str(error) for part in _OF_TORCH_SAVE):
            raise
        reason = error.strerror if isinstance(error, OSError) else "the file is incomplete"
        raise TrainingError(
            f"cannot write to {relative_to_cwd(folder)} ({reason}); its previous files are intact: make room, and "
            "continue with --resume"
        ) from error


def restore_snapshot(path: Path, state: TrainingState, fingerprint: Mapping[str, str]) -> Record:
    """Restore the state of a snapshot, and return its record.

    Raises:
        TrainingError: There is no snapshot, it is damaged, or it belongs to other settings, data or weights.
    """
    content = _read(path)
    differing = [
        f"{key} was {content['fingerprint'].get(key)}, now {fingerprint.get(key)}"
        for key in sorted({*fingerprint, *content["fingerprint"]})
        if content["fingerprint"].get(key) != fingerprint.get(key)
    ]
    if differing:
        more = f" and {len(differing) - _LISTED} more" if len(differing) > _LISTED else ""
        raise TrainingError(
            f"{relative_to_cwd(path)} is of another training: {'; '.join(differing[:_LISTED])}{more}; give the same "
            "again, or start a new training in another --output"
        )
    state.network.load_state_dict(content["network"])
    state.average.load_state_dict(content["average"])
    state.optimizer.load_state_dict(content["optimizer"])
    state.schedule.load_state_dict(content["schedule"])
    state.generator.set_state(content["generator"])
    torch.set_rng_state(content["host_generator"])
    if state.device.type == "cuda":
        torch.cuda.set_rng_state(content["device_generator"], state.device)
    return Record.from_dict(content["record"])


def _read(path: Path) -> dict[str, Any]:
    name = relative_to_cwd(path)
    if not path.is_file():
        raise TrainingError(f"nothing to resume: {name} not found; start without --resume")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:120]
        raise TrainingError(f"{name}: not a readable snapshot ({reason}); start again without --resume") from error
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise TrainingError(f"{name}: not a snapshot of this version; start again without --resume")
    return content


def _plain(network: nn.Module) -> dict[str, torch.Tensor]:
    return dict(network.state_dict())
