"""The client without a server: typed errors and deadlines."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import grpc
import pytest

from ssd_triton.client import (
    DeadlineExceededError,
    DetectorClient,
    ServerUnreachableError,
)
from tests.conftest import free_url

Protocol = Literal["grpc", "http"]
PROTOCOLS: tuple[Protocol, ...] = ("grpc", "http")


@pytest.fixture
def silent_url() -> Iterator[str]:
    """A port that accepts connections and never answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield f"127.0.0.1:{listener.getsockname()[1]}"


class _NeverAnswers(grpc.GenericRpcHandler):
    """Takes every gRPC call and keeps it until the test ends."""

    def __init__(self) -> None:
        self.end = threading.Event()

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        return grpc.unary_unary_rpc_method_handler(lambda request, context: self.end.wait())


@pytest.fixture
def stuck_url() -> Iterator[str]:
    """A gRPC server that accepts calls and never answers."""
    handler = _NeverAnswers()
    server = grpc.server(ThreadPoolExecutor(4), handlers=[handler])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    handler.end.set()
    server.stop(grace=None).wait()


@pytest.mark.parametrize("variable", ["http_proxy", "grpc_proxy"])
def test_loopback_needs_no_proxy(stuck_url: str, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, f"http://{free_url()}")
    for name in ("no_proxy", "no_grpc_proxy"):
        monkeypatch.delenv(name, raising=False)
    with DetectorClient(stuck_url, timeout_s=0.5) as client, pytest.raises(DeadlineExceededError):
        client.is_ready()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_nothing_at_the_address(protocol: Protocol, photograph: bytes) -> None:
    with DetectorClient(free_url(), protocol=protocol, timeout_s=1) as client:
        with pytest.raises(
            ServerUnreachableError, match=r"no Triton server answers at 127\.0\.0\.1:\d+ .*ssd-triton serve"
        ):
            client.wait_ready(timeout_s=0)
        with pytest.raises(ServerUnreachableError):
            client.detect(photograph)
        with pytest.raises(ServerUnreachableError):
            client.submit(photograph).result()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_silent_server_meets_the_deadline(silent_url: str, protocol: Protocol, photograph: bytes) -> None:
    start_s = time.monotonic()
    with DetectorClient(silent_url, protocol=protocol, timeout_s=1) as client:
        with pytest.raises((DeadlineExceededError, ServerUnreachableError)):
            client.detect(photograph)
        with pytest.raises((DeadlineExceededError, ServerUnreachableError)):
            client.wait_ready(timeout_s=0)
    assert time.monotonic() - start_s < 5


def test_every_grpc_call_has_a_deadline(stuck_url: str, photograph: bytes) -> None:
    start_s = time.monotonic()
    with DetectorClient(stuck_url, timeout_s=0.2) as client:
        for call in (client.is_ready, client.model_config, client.server_version, lambda: client.detect(photograph)):
            with pytest.raises(DeadlineExceededError):
                call()
        with pytest.raises(DeadlineExceededError):
            client.wait_ready(timeout_s=0.3)
    assert time.monotonic() - start_s < 10
