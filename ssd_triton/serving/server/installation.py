"""Finds a ``tritonserver``, and lays out the backends for one from a wheel.

A ``tritonserver`` on PATH brings its native backends. The wheel ``nvidia-pytriton`` contains the same server with only
the python backend. That server looks for ``backends/<name>/model.py`` in its backend directory, where this project puts
its Python-based backends. The model repository is the same in both cases.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy

from ssd_triton.common import cores
from ssd_triton.common.errors import ServerError
from ssd_triton.common.files import SHIPPED

ALLOCATOR = {"MALLOC_ARENA_MAX": "2", "MALLOC_MMAP_THRESHOLD_": str(8 << 20), "MALLOC_TRIM_THRESHOLD_": str(32 << 20)}
"""Settings of glibc's allocator that return freed memory to the system. By default, many threads keep their own heaps,
and the size from which memory is returned at once grows up to 32 MiB. Blocks below the limit chosen here, such as the
raw outputs of two images, are kept, since every request needs them again."""
BACKENDS = SHIPPED / "backends"
STUB = "triton_python_backend_stub"
MAX_NUMPY = 1
"""Newest major version of NumPy that the python backend of Triton 2.51 was built for."""


@dataclass(frozen=True)
class TritonInstallation:
    """A server binary with the options and environment that it needs on this machine."""

    binary: Path
    options: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


def find_triton(runtime_dir: Path) -> TritonInstallation:
    """Find a server: ``tritonserver`` on PATH, else the wheel's.

    Args:
        runtime_dir: An empty folder that lives as long as the server; the wheel's backends are laid out in it.

    Raises:
        ServerError: There is no server, or the python backend of the wheel cannot run with this Python.
    """
    on_path = shutil.which("tritonserver")
    if on_path:
        return TritonInstallation(Path(on_path), environment=_allocator())
    spec = importlib.util.find_spec("pytriton")
    if spec is None or spec.origin is None:
        raise ServerError(
            "no tritonserver found, neither on PATH nor from the wheel: install it with "
            "\"pip install -e '.[server]'\", or run inside NVIDIA's Triton container"
        )
    return _from_wheel(Path(spec.origin).parent, runtime_dir)


def _from_wheel(package: Path, runtime_dir: Path) -> TritonInstallation:
    server, site_packages = package / "tritonserver", package.parent
    python_version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = server / "python_backend_stubs" / python_version / STUB
    if not stub.is_file():
        has = ", ".join(sorted(path.name for path in stub.parent.parent.iterdir()))
        raise ServerError(f"got Python {python_version}, expected one that nvidia-pytriton has a stub for: {has}")
    libraries = [str(site_packages / "nvidia_pytriton.libs"), sysconfig.get_config_var("LIBDIR") or ""]
    environment = {
        **_allocator(),
        "LD_LIBRARY_PATH": _joined(*libraries, os.environ.get("LD_LIBRARY_PATH", "")),
        # The stub embeds Python in isolated mode: it ignores PYTHONPATH, and uses the virtual environment of the first
        # `python3` on PATH.
        "PATH": _joined(str(Path(sys.executable).parent), os.environ.get("PATH", "")),
        "ORT_DISABLE_TELEMETRY": "1",
        # Otherwise idle OpenMP threads spin on the cores that Triton's own threads need.
        "OMP_WAIT_POLICY": "PASSIVE",
    }
    _check_stub(stub, environment, python_version)
    _check_numpy()
    backends = runtime_dir / "backends"
    shutil.copytree(server / "backends", backends, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(stub, backends / "python" / STUB)
    for backend in sorted(path for path in BACKENDS.iterdir() if (path / "model.py").is_file()):
        shutil.copytree(backend, backends / backend.name, ignore=shutil.ignore_patterns("__pycache__"))
        for shared in (*BACKENDS.glob("*.py"), Path(cores.__file__)):
            shutil.copy(shared, backends / backend.name)
    return TritonInstallation(server / "bin" / "tritonserver", ("--backend-directory", str(backends)), environment)


def _check_stub(stub: Path, environment: Mapping[str, str], python_version: str) -> None:
    """Refuse a machine without the shared libpython that the stub links to, as with some builds and slim images."""
    linked = subprocess.run(
        ["ldd", str(stub)], env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    missing = [line.split()[0] for line in linked.stdout.splitlines() if "not found" in line]
    if missing:
        raise ServerError(
            f"Triton's python backend needs {', '.join(missing)}, which this machine lacks: install it (Debian, "
            f"Ubuntu: 'apt install libpython{python_version}'; conda: use conda's Python; pyenv: build with "
            "--enable-shared)"
        )


def _check_numpy() -> None:
    """Refuse a NumPy with which the wheel's python backend crashes at the first image."""
    if int(numpy.__version__.partition(".")[0]) > MAX_NUMPY:
        raise ServerError(
            f"got NumPy {numpy.__version__}, expected {MAX_NUMPY}.x: with a newer one, the wheel's python backend ends "
            f"at the first image; run \"pip install 'numpy<{MAX_NUMPY + 1}'\""
        )


def _allocator() -> dict[str, str]:
    """Return :data:`ALLOCATOR` without the variables that the environment already sets."""
    return {name: value for name, value in ALLOCATOR.items() if name not in os.environ}


def _joined(*folders: str) -> str:
    return os.pathsep.join(dict.fromkeys(folder for folder in folders if folder))
