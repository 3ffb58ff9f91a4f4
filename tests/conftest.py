"""Fixtures that all tests share: the configuration, real images, and scripts run as a user runs them."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import random
import runpy
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssd_triton.common.files import ROOT
from ssd_triton.common.labels import load_labels
from ssd_triton.config import Config, load_config
from ssd_triton.detector.export.samples import sample_photograph
from ssd_triton.detector.network.ssd import ServedDetector
from ssd_triton.detector.weights.file import WeightsFile

TEST_DATA = Path(os.environ.get("SSD_TEST_DATA", ROOT.parent / "shared" / "data"))
"""Optional real data, not part of the project: COCO images, clips; tests that need it skip without it."""

THOROUGH = bool(os.environ.get("SSD_TEST_THOROUGH"))
"""Whether what takes long is run too, and at full size: ``SSD_TEST_THOROUGH=1 make test``."""

long = pytest.mark.skipif(not THOROUGH, reason="takes long: set SSD_TEST_THOROUGH=1")


@pytest.fixture(scope="session")
def config() -> Config:
    return load_config(ROOT / "config.yml")


@pytest.fixture(scope="session")
def labels(config: Config) -> tuple[str, ...]:
    return load_labels(config.labels_path)


@pytest.fixture(scope="session")
def reference_detector(config: Config, labels: tuple[str, ...]) -> ServedDetector:
    """PyTorch, FP32."""
    return ServedDetector(WeightsFile(config.weights_path).load_network(config.backbone, len(labels))).eval()


@pytest.fixture(scope="session")
def photograph() -> bytes:
    """A real JPEG with one person, 512 x 600 px."""
    return sample_photograph()


@pytest.fixture(scope="session")
def photograph_rgb(photograph: bytes) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(photograph)).convert("RGB"))


@pytest.fixture(scope="session")
def data() -> Callable[[str], Path]:
    """Find optional data by its path below the test-data folder, or skip."""

    def find(relative: str) -> Path:
        path = TEST_DATA / relative
        if not path.exists():
            pytest.skip(f"optional test data '{relative}' is not there (set SSD_TEST_DATA)")
        return path

    return find


@pytest.fixture
def run_script(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run one of the project's scripts as a user would, from another folder."""

    def run(script: str, *arguments: object, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, str(ROOT / script), *map(str, arguments)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    return run


@pytest.fixture
def run_main(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., subprocess.CompletedProcess[str]]:
    """The same in this process, which has imported PyTorch already: for what a script refuses, and its ``--help``."""

    def run(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        command = [str(ROOT / script), *map(str, arguments)]
        monkeypatch.setattr(sys, "argv", command)
        monkeypatch.chdir(tmp_path)
        stdout, stderr, code = io.StringIO(), io.StringIO(), None
        on_sigterm, root = signal.getsignal(signal.SIGTERM), logging.getLogger()
        # As the script's own logging.basicConfig, which does nothing beside pytest's handlers.
        log, level = logging.StreamHandler(stderr), root.level
        root.addHandler(log)
        root.setLevel(logging.INFO)
        try:
            with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
                runpy.run_path(command[0], run_name="__main__")
        except SystemExit as end:
            code = end.code
        finally:
            signal.signal(signal.SIGTERM, on_sigterm)
            root.removeHandler(log)
            root.setLevel(level)
        assert isinstance(code, int)
        return subprocess.CompletedProcess(command, code, stdout.getvalue(), stderr.getvalue())

    return run


def assert_wrong_usage(result: subprocess.CompletedProcess[str], *words: str) -> None:
    """Wrong usage: exit code 2, one line on stderr that holds the words."""
    assert result.stderr.count("\n") == 1, result.stderr
    assert_one_line_error(result, *words, code=2)


def assert_one_line_error(result: subprocess.CompletedProcess[str], *words: str, code: int = 1) -> None:
    """A user's error: its exit code, one line at the end of stderr that holds the words, no traceback."""
    assert result.returncode == code, result.stderr
    assert "Traceback" not in result.stderr
    last = result.stderr.strip().splitlines()[-1]
    assert ": error: " in last
    for word in words:
        assert word in last, last


def children_of(pid: int) -> list[int]:
    """Processes that a process has started."""
    listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=True)
    return [int(child) for child in listed.stdout.split()]


def free_port() -> int:
    """A port that nothing listens on.

    It lies below the range from which the kernel takes ports for others (``ip_local_port_range``), so that nobody gets
    it before the test uses it.
    """
    first_of_the_kernel = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    for port in random.sample(range(first_of_the_kernel // 2, first_of_the_kernel), 100):
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise AssertionError("100 ports are taken")


def free_ports() -> list[int]:
    """Three ports that nothing listens on, for gRPC, HTTP and metrics."""
    ports = {free_port()}
    while len(ports) < 3:
        ports.add(free_port())
    return list(ports)


def free_url() -> str:
    """An address that nothing listens on."""
    return f"127.0.0.1:{free_port()}"


def group_members(pgid: int) -> list[int]:
    """Living processes of a process group; those that only wait to be reaped do not count."""
    listed = subprocess.run(["ps", "-eo", "pid=,pgid=,stat="], capture_output=True, text=True, check=True)
    rows = [line.split() for line in listed.stdout.splitlines()]
    return [int(pid) for pid, group, state in rows if int(group) == pgid and not state.startswith("Z")]
