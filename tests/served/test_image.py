"""The image's files and packages serve."""

from __future__ import annotations

import importlib.util
import itertools
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from ssd_triton.client import DetectorClient
from ssd_triton.common.files import ROOT
from ssd_triton.config import Config
from ssd_triton.serving.server.installation import find_triton
from tests.conftest import free_ports
from tests.serving.image import copy_image_files


@pytest.fixture(scope="module")
def image_files(tmp_path_factory: pytest.TempPathFactory, config: Config) -> Path:
    return copy_image_files(config, tmp_path_factory.mktemp("image"))


def test_serves_from_the_image_s_files_and_packages(image_files: Path, tmp_path: Path, photograph: bytes) -> None:
    """On the CPU, with the server of the wheel in place of the image's; installs packages, so only when asked for."""
    if "SSD_TEST_NETWORK" not in os.environ:
        pytest.skip("installs the image's packages from the package index: set SSD_TEST_NETWORK=1")
    python = tmp_path / "venv/bin/python3"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--require-hashes"]
    for name, options in (("requirements", []), ("tensorrt", ["--no-build-isolation"])):
        subprocess.run([*pip, *options, "-r", ROOT / f"deploy/container/{name}.txt"], check=True)
    wheel = find_triton(tmp_path / "wheel")
    server = tmp_path / "bin/tritonserver"
    server.parent.mkdir()
    server.write_text(f'#!/bin/sh\nexec "{wheel.binary}" "$@" {shlex.join(wheel.options)}\n')
    server.chmod(0o755)
    # The backends of the wheel's server need ONNX Runtime, which the image's native backend has of its own.
    onnxruntime = Path(str(importlib.util.find_spec("onnxruntime").origin)).parents[1]
    (python.parents[1] / f"lib/python3.{sys.version_info.minor}/site-packages/onnxruntime").symlink_to(
        onnxruntime / "onnxruntime"
    )
    environment = {**os.environ, **wheel.environment, "PATH": f"{python.parent}:{server.parent}:/usr/bin:/bin"}
    ports = dict(zip(("--grpc-port", "--http-port", "--metrics-port"), free_ports(), strict=True))
    options = [*map(str, itertools.chain.from_iterable(ports.items())), "--runtime-dir", str(tmp_path / "run")]
    serving = subprocess.Popen(
        [python, "tools/container_entrypoint.py", *options],
        cwd=image_files,
        env={**environment, "PYTHONPATH": str(image_files)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        with DetectorClient(f"127.0.0.1:{ports['--grpc-port']}", timeout_s=60) as client:
            client.wait_ready(timeout_s=60)
            assert client.detect(photograph).filter(score_thresh=0.5).class_ids.tolist() == [1]
    finally:
        serving.terminate()
        serving.wait(30)
    assert serving.returncode == 0
