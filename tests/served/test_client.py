"""The client against real servers: deadlines, typed errors, retries, shared memory."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import signal
from typing import Any, Literal

import numpy as np
import pytest

from ssd_triton.client import (
    DeadlineExceededError,
    DetectorClient,
    ServerNotReadyError,
    ServerOverloadedError,
    ServerUnreachableError,
)
from ssd_triton.client.shared_memory import frame_regions
from ssd_triton.client.transport import Outputs
from ssd_triton.serving.server import EmbeddedServer
from tests.served.helpers import Gate, assert_equal

Protocol = Literal["grpc", "http"]
PROTOCOLS: tuple[Protocol, ...] = ("grpc", "http")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_answer_too_late(server: EmbeddedServer, protocol: Protocol, photograph: bytes) -> None:
    with DetectorClient(server.url(protocol), protocol=protocol, timeout_s=0.01) as client:
        # On a busy machine the server may be the first to notice.
        expected = "no answer within the deadline|Request timeout expired"
        with pytest.raises((DeadlineExceededError, ServerOverloadedError), match=expected):
            client.detect(photograph)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_unknown_model(light_server: EmbeddedServer, protocol: Protocol, photograph: bytes) -> None:
    with DetectorClient(light_server.url(protocol), protocol=protocol, timeout_s=5, model="ssd512") as client:
        assert not client.is_ready()
        with pytest.raises(ServerNotReadyError, match="ssd512"):
            client.wait_ready(timeout_s=0.2)
        with pytest.raises(ServerNotReadyError, match="ssd512"):
            client.detect(photograph)


def test_a_deadline_on_a_stream(server: EmbeddedServer, photograph: bytes) -> None:
    with DetectorClient(server.url("grpc"), timeout_s=0.01) as client, pytest.raises(DeadlineExceededError):
        list(client.stream([photograph]))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_retries_reach_a_server_that_comes_back(
    light_server: EmbeddedServer, protocol: Protocol, photograph: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody listens until the request has failed once; within its retries somebody does."""
    gate = Gate(light_server.url(protocol))
    with DetectorClient(gate.url, protocol=protocol, timeout_s=60) as client:
        infer = client._transport.infer

        def open_after_a_failure(*arguments: Any, **options: Any) -> Outputs:
            try:
                return infer(*arguments, **options)
            except ServerUnreachableError:
                if client.retries == 0:
                    gate.open()
                raise

        monkeypatch.setattr(client._transport, "infer", open_after_a_failure)
        assert len(client.detect(photograph)) > 0
        assert client.retries > 0
    gate.close()


def test_a_slow_connection_is_waited_for(light_server: EmbeddedServer, photograph: bytes) -> None:
    """As over TLS on a busy machine: gRPC's shortest pause before it connects again is its limit of an attempt too."""
    gate = Gate(light_server.url("grpc"), delay_s=0.5)
    gate.open()
    with DetectorClient(gate.url, timeout_s=60) as client:
        assert len(client.detect(photograph)) > 0
        assert client.retries == 0
    gate.close()


def test_in_flight_is_bounded(server: EmbeddedServer, photograph: bytes) -> None:
    """With two in flight, the third submission waits for an answer."""
    with DetectorClient(server.url("grpc"), timeout_s=60, in_flight=2) as client:
        futures = [client.submit(photograph) for _ in range(2)]
        assert not any(future.done() for future in futures)
        futures.append(client.submit(photograph))
        assert any(future.done() for future in futures[:2])
        assert all(len(future.result()) > 0 for future in futures)


def test_model_config_tells_what_is_deployed(light_detector: DetectorClient) -> None:
    parameters = light_detector.model_config("ssd_postprocess")["parameters"]
    assert parameters["score_thresh"]["string_value"] == "0.05"


def regions(pid: int) -> set[str]:
    """The regions of one process; other tests run beside this one."""
    return {path.name for path in frame_regions(pid)}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_frames_travel_through_shared_memory(
    light_server: EmbeddedServer, protocol: Protocol, photograph_rgb: np.ndarray
) -> None:
    before = regions(os.getpid())
    with DetectorClient(light_server.url(protocol), protocol=protocol, timeout_s=60, use_shared_memory=False) as client:
        expected = client.detect_frame(photograph_rgb)
        assert regions(os.getpid()) == before
    with DetectorClient(light_server.url(protocol), protocol=protocol, timeout_s=60, use_shared_memory=True) as client:
        assert_equal(client.detect_frame(photograph_rgb[:200, :200]), client.detect_frame(photograph_rgb[:200, :200]))
        assert_equal(client.detect_frame(photograph_rgb), expected)  # larger than the region so far
        assert len(regions(os.getpid()) - before) >= 1
    assert regions(os.getpid()) == before


def test_frames_are_sent_when_the_server_cannot_map_them(
    light_server: EmbeddedServer, photograph_rgb: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with a server in a container of its own behind a loopback port: its /dev/shm is another."""
    with DetectorClient(light_server.url("grpc"), timeout_s=60) as client:
        transport = client._transport
        register = transport.register_shared_memory
        monkeypatch.setattr(
            transport, "register_shared_memory", lambda name, key, size: register(name, key + "_elsewhere", size)
        )
        before = regions(os.getpid())
        assert len(client.detect_frame(photograph_rgb)) > 0
        assert regions(os.getpid()) == before


def _hold_a_region(url: str, frame: np.ndarray, ready: multiprocessing.connection.Connection) -> None:
    client = DetectorClient(url, timeout_s=60)
    client.detect_frame(frame)
    ready.send(os.getpid())
    while True:
        client.detect_frame(frame)


def test_regions_of_a_killed_client_are_freed_by_the_next(
    light_server: EmbeddedServer, photograph_rgb: np.ndarray
) -> None:
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_hold_a_region, args=(light_server.url("grpc"), photograph_rgb, sender))
    process.start()
    pid = receiver.recv()
    assert regions(pid)
    os.kill(pid, signal.SIGKILL)
    process.join()
    with DetectorClient(light_server.url("grpc"), timeout_s=60) as client:
        registered = client._transport.registered_shared_memory
        assert any(f"_{pid}_" in name for name in registered())
        assert not regions(pid)
        assert len(client.detect_frame(photograph_rgb)) > 0
        assert not any(f"_{pid}_" in name for name in registered())
    with DetectorClient(light_server.url("http"), protocol="http") as client:
        # Those of living clients stay.
        assert not any(f"_{pid}_" in name for name in client._transport.registered_shared_memory())
