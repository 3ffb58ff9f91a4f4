"""Addresses of a real server: IPv6, names, the ports of other protocols, and the schemes of URLs."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import pytest

from ssd_triton.client import DetectorClient, ServerUnreachableError
from ssd_triton.config import Config
from ssd_triton.serving.server import EmbeddedServer
from ssd_triton.serving.status.metrics import fetch_metrics

Protocol = Literal["grpc", "http"]
PROTOCOLS: tuple[Protocol, ...] = ("grpc", "http")


@pytest.fixture(scope="module", params=["::1", "localhost"])
def named_server(request: pytest.FixtureRequest, config: Config, light_repository: Path) -> Iterator[EmbeddedServer]:
    host: str = request.param
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as listener:
            listener.bind((host, 0))
    except OSError as error:
        pytest.skip(f"no {host} on this machine: {error}")
    settings = config.server.for_one_run().model_copy(update={"host": host})
    with EmbeddedServer(light_repository, "onnx_fp32", settings) as server:
        yield server


def test_ipv6_and_names(named_server: EmbeddedServer, photograph: bytes) -> None:
    found = []
    for protocol in PROTOCOLS:
        with DetectorClient(f"{protocol}://{named_server.url(protocol)}", protocol=protocol) as client:
            client.wait_ready(timeout_s=0)
            found.append(client.detect(photograph))
    assert len(found[0]) > 0
    assert found[0].boxes_xyxy.tolist() == found[1].boxes_xyxy.tolist()
    assert fetch_metrics(named_server.metrics_url, timeout_s=5).pending


def test_brackets_of_a_host_are_taken_off() -> None:
    assert Config.model_validate({"server": {"host": "[::1]"}}).server.host == "::1"


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_port_of_the_other_protocol(light_server: EmbeddedServer, protocol: Protocol) -> None:
    other: Protocol = "http" if protocol == "grpc" else "grpc"
    with DetectorClient(light_server.url(other), protocol=protocol) as client:
        with pytest.raises(ServerUnreachableError, match=f"give that port, or --protocol {other}"):
            client.wait_ready(timeout_s=0)


def test_the_commands_name_what_is_wrong(
    light_server: EmbeddedServer, run_main: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    grpc, http = light_server.url("grpc"), light_server.url("http")
    for arguments, words in (
        (("--url", http), "got a port of HTTP, expected one of gRPC"),
        (("--url", grpc, "--protocol", "http"), "got a port of gRPC, expected one of HTTP"),
        (("--url", f"http://{http}"), "--protocol http"),
        (("--url", light_server.metrics_url, "--protocol", "http"), "got an answer that is not JSON"),
    ):
        result = run_main("tools/status.py", *arguments)
        assert (result.returncode, result.stdout) == (1, "")
        assert words in result.stderr
        assert result.stderr.count("\n") == 1
    assert run_main("tools/status.py", "--url", f"grpc://{grpc}", "--no-metrics").returncode == 0
