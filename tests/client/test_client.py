"""The client without a server: typed errors and deadlines."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from typing import Literal

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


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_nothing_at_the_address(protocol: Protocol, photograph: bytes) -> None:
    with DetectorClient(free_url(), protocol=protocol, timeout_s=1) as client:
        with pytest.raises(
            ServerUnreachableError, match=r"no Triton server answers at 127\.0\.0\.1:\d+ .*tools/serve\.py"
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
    assert time.monotonic() - start_s < 5
