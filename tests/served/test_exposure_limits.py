"""How the shipped proxies bound what one client can take: suites, time, connections and rates."""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import threading
import time
from concurrent.futures import Future

import pytest

from ssd_triton.client import DetectorClient
from tests.served.proxies import BINARY, INFER, PROTOCOLS, Front, answer_to, request_bytes

# --- TLS --------------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*TLSv1_1 is deprecated:DeprecationWarning")
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_only_modern_suites_are_taken(front: Front, protocol: str) -> None:
    def handshake(version: ssl.TLSVersion, suites: str) -> str | None:
        context = front.certificates.tls.context(ssl.create_default_context)
        context.minimum_version = context.maximum_version = version
        context.set_ciphers(f"{suites}:@SECLEVEL=0")
        host, port = front.urls[protocol].split(":")
        with socket.create_connection((host, int(port)), timeout=10) as plain:
            with context.wrap_socket(plain, server_hostname=host) as connection:
                return connection.version()

    assert handshake(ssl.TLSVersion.TLSv1_2, "ECDHE-ECDSA-AES128-GCM-SHA256") == "TLSv1.2"
    assert handshake(ssl.TLSVersion.TLSv1_3, "ALL") == "TLSv1.3"
    for version, suites in (
        (ssl.TLSVersion.TLSv1_2, "ECDHE-ECDSA-AES128-SHA256"),
        (ssl.TLSVersion.TLSv1_2, "ECDHE-ECDSA-AES256-SHA"),
        (ssl.TLSVersion.TLSv1_1, "ALL"),
    ):
        with pytest.raises((ssl.SSLError, ConnectionResetError)):
            handshake(version, suites)


# --- connections and rates --------------------------------------------------------------------------------------------


OTHER = "127.0.0.2"
"""An address of this machine for a client whose limits are to be reached; the other tests' keeps its own."""


def connection_from(front: Front, address: str) -> ssl.SSLSocket:
    """A connection of HTTP with the right certificate, from another address of this machine."""
    context = front.certificates.tls.context(ssl.create_default_context)
    host, port = front.urls["http"].split(":")
    plain = socket.create_connection((host, int(port)), timeout=30, source_address=(address, 0))
    return context.wrap_socket(plain, server_hostname=host)


def test_one_client_does_not_take_all_connections(front: Front, photograph: bytes) -> None:
    """The 65th with a request on its way is refused, and another client is served."""
    waiting = request_bytes("POST", INFER, [*BINARY.items(), ("Content-Length", "1000")], b"x")
    with contextlib.ExitStack() as stack:
        refused = 0
        connections: list[ssl.SSLSocket] = []
        for _ in range(70):
            try:
                connections.append(stack.enter_context(connection_from(front, OTHER)))
                connections[-1].sendall(waiting)
            except (OSError, ssl.SSLError):
                refused += 1
        time.sleep(0.5)
        for connection in select.select(connections, [], [], 0)[0]:
            with contextlib.suppress(OSError):
                connection.setblocking(False)
                refused += b" 429 " in connection.recv(65536).split(b"\r\n")[0]
        assert refused == 6
        with front.client("http") as client:
            assert len(client.detect(photograph)) > 0


def test_one_client_does_not_take_all_requests(front: Front, photograph: bytes) -> None:
    """NGINX lets 100 a second through, and 200 more; HAProxy 1000 in 10 s."""
    request = request_bytes("GET", "/v2/health/live", [])
    statuses = []
    with contextlib.ExitStack() as stack:
        connection = stack.enter_context(connection_from(front, OTHER))
        for _ in range(1200):
            status, _ = answer_to(connection, request)
            statuses.append(status)
            if status != 200:  # refusals may close
                connection = stack.enter_context(connection_from(front, OTHER))
            if statuses.count(429) > 10:
                break
    assert set(statuses) == {200, 429}
    assert statuses.index(429) >= 200
    with front.client("http") as client:
        assert len(client.detect(photograph)) > 0


def test_requests_that_are_given_up_do_not_end_the_server(
    front: Front, photograph: bytes, light_grpc_detector: DetectorClient
) -> None:
    """Eight threads for three seconds, over HTTP; cancelled calls of gRPC end Triton 24.10, through any proxy."""
    request = request_bytes("POST", INFER, [*BINARY.items(), ("Content-Length", str(len(photograph)))], photograph)
    end_s = time.monotonic() + 3
    counts = [0] * 8

    def give_up(number: int) -> None:
        while time.monotonic() < end_s:
            # Each address has a limit of its own.
            with contextlib.suppress(OSError), connection_from(front, f"127.0.1.{number + 1}") as connection:
                connection.sendall(request)
                time.sleep(0.002 * (counts[number] % 10))
                counts[number] += 1

    threads = [threading.Thread(target=give_up, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert min(counts) > 5
    front.server.check()
    assert len(light_grpc_detector.detect(photograph)) > 0


def test_slow_clients_are_cut_off(slow_clients: Future[dict[str, float]]) -> None:
    assert all(9 < seconds < 14 for seconds in slow_clients.result().values()), slow_clients.result()
