"""Names of the classes that the network tells apart."""

from __future__ import annotations

from pathlib import Path

from ssd_triton.common.errors import ConfigError
from ssd_triton.common.files import relative_to_cwd


def load_labels(path: Path) -> tuple[str, ...]:
    """Read one class name per line; the line number, from 0, is the class id, and line 0 is the background.

    Raises:
        ConfigError: The file is missing, or does not begin with ``background``, or repeats a name.
    """
    if not path.is_file():
        raise ConfigError(f"labels file not found: {relative_to_cwd(path)}; set labels_path in config.yml")
    labels = tuple(path.read_text(encoding="utf-8").splitlines())
    if len(labels) < 2 or labels[0] != "background":
        raise ConfigError(
            f"{relative_to_cwd(path)}: got {labels[:1]!r} on the first line, expected 'background' and then a class "
            "name on each line"
        )
    if len(set(labels)) != len(labels) or "" in labels:
        raise ConfigError(f"{relative_to_cwd(path)}: class names must be unique and not empty")
    return labels
