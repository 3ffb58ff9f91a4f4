"""Artefacts of the model repository: what each is built from, how it is built, and whether it is out of date.

Each artefact has a JSON record beside it, with its inputs (``inputs``), its own SHA-256, and the package versions that
built it. An artefact is current when its inputs are unchanged and its content is still what was written. Engines have
their own kind of record: :mod:`ssd_triton.detector.engines.engine`.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Protocol

from ssd_triton.common.files import atomic_output, sha256_of


class Artefact(Protocol):
    """A file of the repository."""

    @property
    def path(self) -> Path:
        """The file."""

    def stale_because(self) -> str | None:
        """Return why it must be built; None when it is current."""

    def unavailable_because(self) -> str | None:
        """Return why it cannot be built on this machine or from these weights; None if it can."""

    def build(self) -> None:
        """Build it with its record; the old one stays in place until the new one has passed its checks."""


@dataclass(frozen=True)
class RecordedArtefact:
    """An artefact with a record beside it.

    Attributes:
        path: The file.
        inputs: What it is built from, as JSON values by name.
        packages: Distributions whose versions are recorded.
        make: Writes the file.
        unavailable: Why it cannot be built, or None.
    """

    path: Path
    inputs: dict[str, object]
    packages: tuple[str, ...]
    make: Callable[[], None]
    unavailable: str | None = None

    @property
    def record_path(self) -> Path:
        """The JSON file beside the artefact."""
        return self.path.with_name(self.path.name + ".json")

    def stale_because(self) -> str | None:
        """See :class:`Artefact`."""
        if not self.path.is_file():
            return "missing"
        try:
            record = json.loads(self.record_path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return "no record of what it was built from"
        if not isinstance(record, dict) or not isinstance(record.get("inputs"), dict):
            return "no record of what it was built from"
        changed = [key for key, value in self.inputs.items() if record["inputs"].get(key) != value]
        if changed:
            return f"changed: {', '.join(changed)}"
        return None if record.get("sha256") == sha256_of(self.path) else "not the file that was built"

    def unavailable_because(self) -> str | None:
        """See :class:`Artefact`."""
        return self.unavailable

    def build(self) -> None:
        """See :class:`Artefact`."""
        self.make()
        record = {
            "artefact": self.path.name,
            "sha256": sha256_of(self.path),
            "inputs": self.inputs,
            "versions": {
                "python": platform.python_version(),
                **{name: version(name) for name in self.packages},
            },
            "built": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        }
        with atomic_output(self.record_path) as temporary:
            temporary.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
