"""Imports modules of the model repository, which a server loads by their bare names."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any


def model_module(model_folder: Path, name: str) -> Any:
    """Import a module of a model.

    It stays in ``sys.modules`` by its bare name, and so do those that it imports: modules of two models must not meet
    in one process. Processes that ``multiprocessing`` spawns find them, too.

    Args:
        model_folder: Folder of the model, such as ``model_repository/ssd``.
        name: Name of the module, such as ``decoding``.
    """
    folder = str(model_folder / "1")
    if folder not in sys.path:
        sys.path.insert(0, folder)
    return importlib.import_module(name)
