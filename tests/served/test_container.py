"""The container's entry point, outside a container: it becomes a real server, and ends on a signal."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ssd_triton.client import DetectorClient
from ssd_triton.config import Config
from ssd_triton.serving.repository.build import ensure_built
from tests.conftest import free_ports, group_members
from tests.serving.entrypoint import starting

Start = Callable[..., subprocess.Popen[str]]
SHM = Path("/dev/shm")
START_TIMEOUT_S = 60
CONNECTION_AGE_S = 1


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    with starting(tmp_path_factory.getbasetemp()) as run:
        yield run


def test_becomes_a_server_that_ends_in_order(start: Start, config: Config, photograph: bytes, tmp_path: Path) -> None:
    """Without a GPU, from a repository of links; SIGTERM reaches tritonserver itself.

    Connections end after a second, as they end after minutes in a cluster: no request may notice.
    """
    ensure_built(config, lambda line: None, only=["onnx_int8"])
    grpc, http, metrics = free_ports()
    ports = ["--grpc-port", grpc, "--http-port", http, "--metrics-port", metrics]
    prefix = f"ssd-container-{os.getpid()}"
    aging = [f"--grpc-max-connection-age={CONNECTION_AGE_S * 1000}", "--grpc-max-connection-age-grace=60000"]
    own_memory = f"--backend-config=python,shm-region-prefix-name={prefix}"
    process = start(tmp_path / "cache", "--variant", "auto", *ports, "--", own_memory, *aging)
    with DetectorClient(f"127.0.0.1:{grpc}", timeout_s=START_TIMEOUT_S) as client:
        client.wait_ready(timeout_s=START_TIMEOUT_S)
        assert Path(f"/proc/{process.pid}/exe").resolve().name == "tritonserver"
        assert client.model_config("ssd_detector")["default_model_filename"] == "onnx_int8.onnx"
        end_s = time.monotonic() + 3 * CONNECTION_AGE_S
        while time.monotonic() < end_s:
            assert client.detect(photograph).filter(score_thresh=0.5).class_ids.tolist() == [1]
        assert client.retries == 0
        assert list(SHM.glob(f"{prefix}*")) != []
    process.terminate()
    process.communicate(timeout=30)
    assert process.returncode == 0
    assert group_members(process.pid) == []
    assert list(SHM.glob(f"{prefix}*")) == []
