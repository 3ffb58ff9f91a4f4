"""Brings the repository up to date before it is served, if the packages for that are installed."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

from ssd_triton.config import Config

_NEEDED = ("torch", "onnx", "onnxruntime", "onnxscript", "safetensors", "matplotlib")


def ensure_built_if_possible(config: Config, variant: str, report: Callable[[str], None]) -> None:
    """Build what is out of date; without the packages for exporting, serve the artefacts as they are.

    Args:
        config: The project's configuration.
        variant: The detector's variant that will be served.
        report: Called with a line for each artefact, or with one line that names what is not installed.
    """
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        report(
            f"serving the artefacts as they are: building them needs {', '.join(missing)} (pip install -e '.[export]')"
        )
        return
    # The import loads PyTorch, which a machine that only serves need not have.
    from ssd_triton.serving.repository.build import ensure_built

    ensure_built(config, report, only=[variant])
