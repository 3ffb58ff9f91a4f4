"""Which tritonserver is found, and what is said where there is none."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from ssd_triton.common.errors import ServerError
from ssd_triton.serving.server import installation


def test_no_server_says_how_to_get_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(installation.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ServerError, match=r"pip install -e '\.\[server\]'"):
        installation.find_triton(tmp_path)


def test_a_server_on_path_is_preferred(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With NVIDIA's container its own binary and backends are used."""
    binary = tmp_path / "tritonserver"
    binary.write_text("#!/bin/sh\n")
    binary.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    found = installation.find_triton(tmp_path)
    assert (found.binary, found.options) == (binary, ())


def test_missing_libpython_names_the_package(tmp_path: Path) -> None:
    """A real program that links to a library nobody has."""
    source, library = tmp_path / "stub.c", tmp_path / "libpython9.9.so.1.0"
    source.write_text("int missing(void); int main(void) { return missing(); }\n")
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler to make a program with a missing library")
    (tmp_path / "lib.c").write_text("int missing(void) { return 0; }\n")
    subprocess.run([compiler, "-shared", f"-Wl,-soname,{library.name}", "-o", library, tmp_path / "lib.c"], check=True)
    subprocess.run([compiler, "-o", tmp_path / "stub", source, library], check=True)
    library.unlink()
    with pytest.raises(ServerError, match=r"needs libpython9\.9\.so\.1\.0, .* 'apt install libpython9\.9'"):
        installation._check_stub(tmp_path / "stub", {}, "9.9")
