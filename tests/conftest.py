"""Fixtures: one real server for the whole run, real images, and a summary of what was skipped."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import runpy
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssd_triton.client import DetectorClient
from ssd_triton.common.detections import Detections
from ssd_triton.common.files import ROOT
from ssd_triton.common.in_flight import submit_ahead
from ssd_triton.common.labels import load_labels
from ssd_triton.config import Config, load_config
from ssd_triton.detector.export.samples import sample_photograph
from ssd_triton.detector.network.ssd import ServedDetector
from ssd_triton.detector.weights.file import load_network
from ssd_triton.media.video import open_source
from ssd_triton.serving.repository.build import ensure_built
from ssd_triton.serving.server import EmbeddedServer
from tests.light import write_light_repository

TEST_DATA = Path(os.environ.get("SSD_TEST_DATA", ROOT.parent / "shared" / "data"))
"""Optional real data, not part of the project: COCO images, clips; tests that need it skip without it."""

THOROUGH = bool(os.environ.get("SSD_TEST_THOROUGH"))
"""Whether what takes long is run too, and at full size: ``SSD_TEST_THOROUGH=1 make test``."""

long = pytest.mark.skipif(not THOROUGH, reason="takes long: set SSD_TEST_THOROUGH=1")


_ASK_A_SERVER = {"server", "light_server", "detector", "light_detector", "detected_drive"}


def pytest_itemcollected(item: pytest.Item) -> None:
    """With several processes, what starts or asks a server runs in one of them: it shares the session's server."""
    fixtures, module = set(getattr(item, "fixturenames", ())), getattr(item, "module", None)
    if fixtures & _ASK_A_SERVER or hasattr(module, "EmbeddedServer"):
        item.add_marker(pytest.mark.xdist_group("server"))


@pytest.fixture(scope="session")
def config() -> Config:
    return load_config(ROOT / "config.yml")


@pytest.fixture(scope="session")
def labels(config: Config) -> tuple[str, ...]:
    return load_labels(config.labels_path)


@pytest.fixture(scope="session")
def server(config: Config) -> Iterator[EmbeddedServer]:
    """The model repository as it is committed, with its artefacts, on free ports; in FP32, as the reference is."""
    ensure_built(config, lambda line: None, only=["onnx_fp32"])
    settings = config.server.for_one_run()
    with EmbeddedServer(config.model_repository, "onnx_fp32", settings) as running:
        yield running


@pytest.fixture(scope="session")
def light_repository(config: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model repository with a detector that costs next to nothing: its ``onnx_fp32`` is that of ``light.py``."""
    ensure_built(config, lambda line: None, only=["onnx_fp32"])
    return write_light_repository(config.model_repository, tmp_path_factory.mktemp("light") / "model_repository")


@pytest.fixture(scope="session")
def light_server(config: Config, light_repository: Path) -> Iterator[EmbeddedServer]:
    """For tests of what is around the detector: requests, images, interruptions, loads that are no overload."""
    with EmbeddedServer(light_repository, "onnx_fp32", config.server.for_one_run()) as running:
        yield running


@pytest.fixture(scope="session")
def default_server(config: Config) -> Iterator[EmbeddedServer]:
    """The variant that ships as the default."""
    ensure_built(config, lambda line: None, only=[config.variant])
    with EmbeddedServer(config.model_repository, config.variant, config.server.for_one_run()) as running:
        yield running


@pytest.fixture(scope="session")
def grpc_detector(server: EmbeddedServer) -> Iterator[DetectorClient]:
    with DetectorClient(server.url("grpc"), protocol="grpc", timeout_s=60) as client:
        client.wait_ready(timeout_s=10)
        yield client


@pytest.fixture(scope="session")
def http_detector(server: EmbeddedServer) -> Iterator[DetectorClient]:
    with DetectorClient(server.url("http"), protocol="http", timeout_s=60) as client:
        client.wait_ready(timeout_s=10)
        yield client


@pytest.fixture(scope="session")
def light_grpc_detector(light_server: EmbeddedServer) -> Iterator[DetectorClient]:
    with DetectorClient(light_server.url("grpc"), protocol="grpc", timeout_s=60) as client:
        yield client


@pytest.fixture(scope="session")
def light_http_detector(light_server: EmbeddedServer) -> Iterator[DetectorClient]:
    with DetectorClient(light_server.url("http"), protocol="http", timeout_s=60) as client:
        yield client


@pytest.fixture(scope="session", params=["grpc", "http"])
def light_detector(request: pytest.FixtureRequest) -> DetectorClient:
    """A client of either protocol."""
    client: DetectorClient = request.getfixturevalue(f"light_{request.param}_detector")
    return client


@pytest.fixture(scope="session", params=["grpc", "http"])
def detector(request: pytest.FixtureRequest) -> DetectorClient:
    """A client of either protocol."""
    client: DetectorClient = request.getfixturevalue(f"{request.param}_detector")
    return client


@pytest.fixture(scope="session")
def reference_detector(config: Config, labels: tuple[str, ...]) -> ServedDetector:
    """PyTorch, FP32."""
    return ServedDetector(load_network(config.weights_path, config.backbone, len(labels))).eval()


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


@dataclass(frozen=True)
class DetectedDrive:
    """A real drive and what the server finds in it, of all scores and classes.

    Attributes:
        path: The clip, or the folder of its images.
        times_s: Of the frames.
        detections: Of the frames.
    """

    path: Path
    times_s: list[float]
    detections: list[Detections]


@pytest.fixture(scope="session")
def detected_drive(request: pytest.FixtureRequest, data: Callable[[str], Path]) -> Callable[[str], DetectedDrive]:
    """Detect in a clip or a folder of images of the optional data, by the default variant, once for all tests."""

    @cache
    def detect(relative: str) -> DetectedDrive:
        path = data(relative)
        default_server: EmbeddedServer = request.getfixturevalue("default_server")
        with (
            DetectorClient(default_server.url("grpc"), timeout_s=60) as client,
            open_source(str(path), image_folder_fps=10) as source,
        ):
            submitted = submit_ahead(source, lambda frame: client.submit_frame(frame.image_rgb), client.in_flight)
            answers = [(frame.time_s, future.result()) for frame, future in submitted]
        return DetectedDrive(path, [time_s for time_s, _ in answers], [found for _, found in answers])

    return detect


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


def assert_one_line_error(result: subprocess.CompletedProcess[str], *words: str) -> None:
    """A user's error: exit code 1, one line at the end of stderr that holds the words, no traceback."""
    assert result.returncode == 1, result.stderr
    assert "Traceback" not in result.stderr
    last = result.stderr.strip().splitlines()[-1]
    assert ": error: " in last
    for word in words:
        assert word in last, last


def seconds_until_asked(server: EmbeddedServer, timeout_s: float = 60) -> float:
    """How long a server that has just become ready waits for its first image."""
    start_s = time.monotonic()
    url = f"http://{server.url('http')}/v2/models/ssd_preprocess/stats"
    while time.monotonic() - start_s < timeout_s:
        with urllib.request.urlopen(url, timeout=timeout_s) as response:
            if json.load(response)["model_stats"][0]["execution_count"] > 0:
                return time.monotonic() - start_s
        time.sleep(0.01)
    raise AssertionError(f"no image came within {timeout_s:g} s")


def children_of(pid: int) -> list[int]:
    """Processes that a process has started."""
    listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=True)
    return [int(child) for child in listed.stdout.split()]


def shared_memory_regions() -> set[Path]:
    """Of this project's clients and servers; other tests run beside this one, and have theirs."""
    return set(Path("/dev/shm").glob("ssd*"))


def free_ports() -> list[int]:
    """Three ports that nothing listens on, for gRPC, HTTP and metrics."""
    with contextlib.ExitStack() as stack:
        # All are open at once, so that none comes twice.
        listeners = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(3)]
        return [listener.getsockname()[1] for listener in listeners]


def group_members(pgid: int) -> list[int]:
    """Living processes of a process group; those that only wait to be reaped do not count."""
    listed = subprocess.run(["ps", "-eo", "pid=,pgid=,stat="], capture_output=True, text=True, check=True)
    rows = [line.split() for line in listed.stdout.splitlines()]
    return [int(pid) for pid, group, state in rows if int(group) == pgid and not state.startswith("Z")]
