"""Builds a model repository of links, so that an engine can be added to a read-only repository."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

from ssd_triton.common.model_names import DETECTOR


def link_repository(source: Path, target: Path, plan: Path | None) -> None:
    """Lay out a folder with links to the model repository and, if given, to an engine.

    Args:
        source: The model repository, which may be read-only.
        target: The folder to create; what an earlier container left there is removed.
        plan: Engine of the detector, with the file name that its configuration expects; None adds no engine.
    """
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for model in sorted(path for path in source.iterdir() if path.is_dir()):
        if model.name == DETECTOR:
            continue
        if (model / "one_process.pbtxt").is_file() and importlib.util.find_spec("torch") is None:
            # The one-process form needs PyTorch for Python. Without its configurations the model is an ensemble.
            (target / model.name).mkdir()
            _link_all(model, target / model.name, leave_out="configs")
        else:
            (target / model.name).symlink_to(model)
    detector = target / DETECTOR
    version = detector / "1"
    version.mkdir(parents=True)
    _link_all(source / DETECTOR, detector)
    _link_all(source / DETECTOR / "1", version)
    if plan is not None:
        link = version / plan.name
        link.unlink(missing_ok=True)
        link.symlink_to(plan)


def _link_all(source: Path, target: Path, leave_out: str = "") -> None:
    for path in source.iterdir():
        if path.name != leave_out and not (target / path.name).exists():
            (target / path.name).symlink_to(path)
