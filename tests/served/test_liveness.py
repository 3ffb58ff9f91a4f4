"""The probe of chart, KServe and Dockerfile, as they run it, against real servers."""

from __future__ import annotations

import subprocess
import time
import urllib.request
from pathlib import Path

from ssd_triton.config import Config
from ssd_triton.serving.server import EmbeddedServer
from ssd_triton.serving.server.backend_processes import backend_processes, is_alive
from tests.served.helpers import executed
from tests.serving.image import ALIVE


def probe(server: EmbeddedServer) -> subprocess.CompletedProcess[str]:
    """Run the script as the kubelet does, but for the port; within the probe's time."""
    command = ["sh", str(ALIVE), server.url("http")]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


def is_ready(server: EmbeddedServer) -> bool:
    with urllib.request.urlopen(f"http://{server.url('http')}/v2/health/ready", timeout=5) as answer:
        return bool(answer.status == 200)


def test_a_server_that_detects_is_alive(light_server: EmbeddedServer) -> None:
    before = executed(light_server, "ssd_detector")
    result = probe(light_server)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert executed(light_server, "ssd_detector") == before + 1


def test_a_server_without_a_model_s_process_is_not(config: Config, light_repository: Path) -> None:
    """Triton says ready all the while."""
    # What waits for the dead process is never answered: its server need not wait for that when it ends.
    settings = config.server.for_one_run().model_copy(update={"shutdown_timeout_s": 1.0})
    with EmbeddedServer(light_repository, "onnx_fp32", settings) as server:
        assert probe(server).returncode == 0
        process = backend_processes(server.pid)["ssd_preprocess_0_0"]
        process.kill()
        deadline_s = time.monotonic() + 10
        while is_alive(process):
            assert time.monotonic() < deadline_s
            time.sleep(0.05)
        result = probe(server)
        assert result.returncode != 0
        assert "500" in result.stderr
        assert is_ready(server)
