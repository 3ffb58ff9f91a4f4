"""The options and metrics that the Helm chart and the alerts name, on a real server."""

from __future__ import annotations

import re
import subprocess
import urllib.request
from pathlib import Path

from ssd_triton.serving.server import EmbeddedServer
from tests.serving.helm import container, expressions

# --- manifests and entry point ----------------------------------------------------------------------------------------


def test_triton_knows_the_options(server: EmbeddedServer) -> None:
    """By the help of the real binary."""
    binary = Path(f"/proc/{server.pid}/exe").resolve()
    environment = dict(
        entry.split("=", 1) for entry in Path(f"/proc/{server.pid}/environ").read_text().split("\0") if "=" in entry
    )
    text = subprocess.run([binary, "--help"], env=environment, capture_output=True, text=True, check=False)
    arguments = container("everything")["args"]
    options = [option.split("=")[0] for option in arguments[arguments.index("--") + 1 :]]
    assert options
    for option in options:
        assert f"{option} <" in text.stdout + text.stderr, option


# --- metrics ----------------------------------------------------------------------------------------------------------


def test_the_server_has_the_metrics(server: EmbeddedServer) -> None:
    """Those of the GPU are of a machine with one; Triton's documentation names them."""
    with urllib.request.urlopen(f"http://127.0.0.1:{server.config.metrics_port}/metrics", timeout=10) as answer:
        served = set(re.findall(r"^# TYPE (\w+)", answer.read().decode(), re.MULTILINE))
    used = set(re.findall(r"\bnv_\w+", " ".join(expressions())))
    on_gpu = {f"nv_gpu_{name}" for name in ("utilization", "memory_used_bytes", "memory_total_bytes", "power_usage")}
    on_gpu.add("nv_gpu_power_limit")
    assert used - served <= on_gpu
    assert on_gpu <= used
