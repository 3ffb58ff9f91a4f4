"""The proxies of ``deploy/`` in front of a real server, as they ship but for addresses and files."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import tritonclient.grpc as grpc_client

from ssd_triton.client import DetectorClient, Tls
from ssd_triton.client.endpoint import parse_endpoint
from ssd_triton.client.grpc_transport import open_channel
from ssd_triton.common.files import ROOT
from ssd_triton.measuring.replicas.haproxy import CONFIG, find_haproxy, replica_statistics
from ssd_triton.serving.server import EmbeddedServer
from tests.certificates import Authority, KeyPair
from tests.conftest import free_url
from tests.served.serving import wait_until

PROTOCOLS = ("grpc", "http")
INFER = "/v2/models/ssd/infer"
BINARY = {"Inference-Header-Content-Length": "0", "Content-Type": "application/octet-stream"}
"""The body is the one input."""


@dataclass(frozen=True)
class Certificates:
    """A server's and a client's of one authority, and a client's of another."""

    authority: Path
    server: KeyPair
    client: KeyPair
    stranger: KeyPair

    @classmethod
    def made(cls, folder: Path) -> Certificates:
        """New ones, as files in a folder."""
        authority, elsewhere = Authority(folder, "authority"), Authority(folder, "elsewhere")
        return cls(
            authority.certificate,
            authority.server("server", "127.0.0.1"),
            authority.client("client"),
            elsewhere.client("stranger"),
        )

    def trusting(self, pair: KeyPair | None) -> Tls:
        """Of a client that trusts the authority and shows this certificate."""
        return Tls(self.authority) if pair is None else Tls(self.authority, pair.certificate, pair.private_key)

    @property
    def tls(self) -> Tls:
        """Of a client that the server trusts."""
        return self.trusting(self.client)


@dataclass(frozen=True)
class Front:
    """A running proxy.

    Attributes:
        name: ``nginx`` or ``haproxy``.
        urls: ``host:port`` by protocol.
        certificates: Those that it knows.
        server: What it stands in front of.
    """

    name: str
    urls: dict[str, str]
    certificates: Certificates
    server: EmbeddedServer

    def client(self, protocol: str, timeout_s: float = 60) -> DetectorClient:
        """A client with the right certificate."""
        return DetectorClient(self.urls[protocol], protocol=protocol, timeout_s=timeout_s, tls=self.certificates.tls)  # type: ignore[arg-type]

    def channel(self) -> grpc_client.InferenceServerClient:
        """A gRPC client without this project's checks."""
        return open_channel(parse_endpoint(self.urls["grpc"], "grpc", tls=True), self.certificates.tls)

    def connect(self, protocol: str, timeout_s: float = 60) -> socket.socket:
        """A connection with TLS and the right certificate."""
        context = self.certificates.tls.context(ssl.create_default_context)
        context.set_alpn_protocols(["h2" if protocol == "grpc" else "http/1.1"])
        host, port = self.urls[protocol].split(":")
        plain = socket.create_connection((host, int(port)), timeout=timeout_s)
        return context.wrap_socket(plain, server_hostname=host)


@contextlib.contextmanager
def nginx(server: EmbeddedServer, certificates: Certificates, folder: Path) -> Iterator[Front]:
    """``deploy/nginx/nginx.conf``; skips without NGINX."""
    binary = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    if binary is None:
        pytest.skip("nginx is not installed (Debian: apt install nginx-light)")
    urls = {"http": free_url(), "grpc": free_url()}
    text = (ROOT / "deploy/nginx/nginx.conf").read_text(encoding="utf-8")
    for old, new in {
        "/etc/ssd-triton/server.pem": str(certificates.server.certificate),
        "/etc/ssd-triton/server.key": str(certificates.server.private_key),
        "/etc/ssd-triton/client_ca.pem": str(certificates.authority),
        "/run/ssd-triton": str(folder),
        "127.0.0.1:8443": urls["http"],
        "127.0.0.1:8444": urls["grpc"],
        "127.0.0.1:8000": server.url("http"),
        "127.0.0.1:8001": server.url("grpc"),
    }.items():
        assert old in text, old
        text = text.replace(old, new)
    (folder / "nginx.conf").write_text(text, encoding="utf-8")
    # Workers of a root's NGINX would run as another user, to whom this folder is closed.
    directives = "daemon off;" + (" user root;" if os.geteuid() == 0 else "")
    command = [binary, "-c", str(folder / "nginx.conf"), "-g", directives]
    with _running(command, dict(os.environ), urls):
        yield Front("nginx", urls, certificates, server)


@contextlib.contextmanager
def haproxy(server: EmbeddedServer, certificates: Certificates, folder: Path) -> Iterator[Front]:
    """``deploy/proxy/haproxy.cfg`` with one server as both replicas; skips without HAProxy."""
    binary = find_haproxy()
    if binary is None:
        pytest.skip("haproxy is not installed (Debian, Ubuntu: apt install haproxy)")
    urls = {"http": free_url(), "grpc": free_url()}
    both = folder / "server.pem"
    pair = certificates.server
    both.write_bytes(pair.certificate.read_bytes() + pair.private_key.read_bytes())
    admin_socket = folder / "admin"
    variables = {
        "SSD_ADMIN_SOCKET": str(admin_socket),
        "SSD_CERTIFICATE": str(both),
        "SSD_CLIENT_CA": str(certificates.authority),
        "SSD_LISTEN": urls["grpc"],
        "SSD_HTTP_LISTEN": urls["http"],
        **{f"SSD_REPLICA_{number}": server.url("grpc") for number in (1, 2)},
        **{f"SSD_HTTP_REPLICA_{number}": server.url("http") for number in (1, 2)},
    }
    with _running([str(binary), "-db", "-f", str(CONFIG)], {**os.environ, **variables}, urls):
        # A first check that fails takes a replica out until the next one.
        wait_until(lambda: {row["check_status"] for row in replica_statistics(admin_socket)} == {"L7OK"})
        yield Front("haproxy", urls, certificates, server)


@contextlib.contextmanager
def _running(command: list[str], environment: dict[str, str], urls: dict[str, str]) -> Iterator[None]:
    with subprocess.Popen(command, env=environment) as process:
        try:
            for url in urls.values():
                _wait_for_port(url)
            yield
        finally:
            process.terminate()


def _wait_for_port(url: str, timeout_s: float = 10) -> None:
    host, port = url.split(":")
    deadline_s = time.monotonic() + timeout_s
    while True:
        try:
            socket.create_connection((host, int(port)), timeout=1).close()
        except OSError:
            assert time.monotonic() < deadline_s
            time.sleep(0.05)
        else:
            return


def request_bytes(method: str, path: str, headers: list[tuple[str, str]], body: bytes = b"") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: x", *(f"{name}: {value}" for name, value in headers)]
    return "\r\n".join([*lines, "", ""]).encode() + body


def answer_to(connection: socket.socket, request: bytes) -> tuple[int, str]:
    """Status and body of the answer; 0 if the connection is closed without one."""
    # A refusal may come before the whole request was sent.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError, ssl.SSLEOFError):
        connection.sendall(request)
    data = b""
    with contextlib.suppress(ConnectionResetError, ssl.SSLEOFError):
        while b"\r\n\r\n" not in data and (part := connection.recv(65536)):
            data += part
    head, _, text = data.partition(b"\r\n\r\n")
    return int(head.split()[1]) if head else 0, text.decode(errors="replace")


def http_call(
    front: Front, method: str, path: str, *headers: tuple[str, str], body: bytes = b"", length: int | None = None
) -> tuple[int, str]:
    """Send a request as it is given, with its length; its status and the answer's body."""
    declared = [("Content-Length", str(len(body) if length is None else length))] if method == "POST" else []
    with front.connect("http") as connection:
        return answer_to(connection, request_bytes(method, path, [*headers, *declared], body))


def seconds_until_cut_off(front: Front) -> dict[str, float]:
    """How long slow clients keep their connections: no handshake, no headers, headers a byte at a time."""
    host, port = front.urls["http"].split(":")
    begin_s = time.monotonic()
    clients = {
        "silent": socket.create_connection((host, int(port))),
        "empty": front.connect("http"),
        "slow": front.connect("http"),
    }
    clients["slow"].sendall(b"GET /v2 HTTP/1.1\r\nHost: x\r\nA: ")
    ended_s: dict[str, float] = {}
    with contextlib.ExitStack() as stack:
        for client in clients.values():
            stack.enter_context(client).settimeout(0.25)
        while len(ended_s) < len(clients) and time.monotonic() < begin_s + 20:
            for name, client in clients.items():
                if name not in ended_s and _is_closed(client, feeding=name == "slow"):
                    ended_s[name] = time.monotonic() - begin_s
    return {name: ended_s.get(name, float("inf")) for name in clients}


def _is_closed(client: socket.socket, *, feeding: bool) -> bool:
    """Whether the other side has closed; what it says before is dropped."""
    try:
        if feeding:
            client.sendall(b"a")
        while client.recv(65536):
            pass
    except TimeoutError:
        return False
    except OSError:
        return True
    return True
