"""The wheel: what it brings, and where an installed package reads and writes."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from ssd_triton import __version__
from ssd_triton.common.files import ROOT, SHIPPED

READ_AND_FILL = """
from ssd_triton.client import DetectorClient
from ssd_triton.common.files import ROOT, SHIPPED, fill_root
from ssd_triton.common.labels import load_labels
print(SHIPPED)
print(ROOT)
print(len(load_labels(SHIPPED / "model_repository/ssd_detector/labels.txt")))
print(ROOT.exists())
fill_root()
print((ROOT / "model_repository/ssd/config.pbtxt").is_file())
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The project's wheel, built from this clone as it lies, artefacts included."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return zipfile.ZipFile(folder / f"ssd_triton-{__version__}-py3-none-any.whl")


@pytest.fixture
def site_packages(wheel: zipfile.ZipFile, tmp_path: Path) -> Path:
    """A folder with the installed package, which nobody may write to."""
    folder = tmp_path / "site-packages"
    wheel.extractall(folder)
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    return folder


def run(site_packages: Path, code: str, data_home: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {
        "PYTHONPATH": str(site_packages),
        "XDG_DATA_HOME": str(data_home),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    command = [sys.executable, "-c", code]
    return subprocess.run(
        command, env=environment, cwd=data_home.parent, capture_output=True, text=True, check=False, timeout=60
    )


def test_the_clone_is_its_own_data() -> None:
    assert ROOT == SHIPPED
    assert (ROOT / "pyproject.toml").is_file()


def test_wheel_brings_what_the_verbs_need(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    shipped = ("backends", "cameras", "deploy/proxy", "model_repository", "perf/sweeps", "recipes")
    tracked = subprocess.run(
        ["git", "ls-files", "--", *shipped, "config.yml", "weights/*.json", "weights/*.md"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    assert {f"ssd_triton/_data/{name}" for name in tracked} == {n for n in names if n.startswith("ssd_triton/_data/")}
    assert "ssd_triton/py.typed" in names
    assert f"ssd_triton-{__version__}.dist-info/licenses/LICENSE" in names
    assert {name.split("/")[0] for name in names} == {"ssd_triton", f"ssd_triton-{__version__}.dist-info"}


def test_files_that_cannot_read_the_version_have_it_too() -> None:
    files = [
        "deploy/helm/ssd-triton/Chart.yaml",
        "deploy/kserve/inferenceservice.yaml",
        "Dockerfile.triton",
        "docs/deployment.md",
    ]
    for file in files:
        text = (ROOT / file).read_text(encoding="utf-8")
        named = re.findall(r"(?:ssd-triton:|^(?:app)?[vV]ersion: \"?)(\d+\.\d+\.\d+)", text, re.MULTILINE)
        assert set(named) == {__version__}, file


def test_installed_package_fills_a_folder_of_the_user(site_packages: Path, tmp_path: Path) -> None:
    data_home = tmp_path / "data"
    user_folder = data_home / "ssd-triton" / __version__
    for existed in ("False", "True"):
        found = run(site_packages, READ_AND_FILL, data_home)
        assert found.stdout.split() == [
            str(site_packages / "ssd_triton/_data"),
            str(user_folder),
            "81",
            existed,
            "True",
        ], found.stderr
    assert [path.name for path in user_folder.parent.iterdir()] == [__version__]
    # The copies can be written, although what they were copied from cannot.
    assert all(path.stat().st_mode & stat.S_IWUSR for path in user_folder.rglob("*"))


def test_folder_that_cannot_be_written_is_named(site_packages: Path, tmp_path: Path) -> None:
    blocked = tmp_path / "data"
    blocked.write_text("a file where a folder should be")
    code = (
        "from ssd_triton.common import errors, files\n"
        "try:\n    files.fill_root()\nexcept errors.UserError as error:\n    print(error)"
    )
    found = run(site_packages, code, blocked)
    assert "set XDG_DATA_HOME" in found.stdout, found.stderr
    assert str(blocked) in found.stdout
