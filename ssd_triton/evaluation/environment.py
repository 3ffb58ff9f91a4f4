"""What figures belong to: the machine, versions and time."""

from __future__ import annotations

import platform
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version

from ssd_triton.common.machine import cores, gpus, processor

_PACKAGES = ("numpy", "pillow", "pycocotools", "tritonclient")


def environment() -> dict[str, str]:
    """Processor, cores, GPU if there is one, versions and the time in UTC, by name."""
    found = gpus()
    return {
        "processor": processor(),
        "cores": str(cores()),
        **({"gpu": ", ".join(found)} if found else {}),
        "system": platform.platform(),
        "python": platform.python_version(),
        **{name: _version(name) for name in _PACKAGES},
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
