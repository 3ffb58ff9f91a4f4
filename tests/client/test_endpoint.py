"""Addresses as users write them, and what a client says of a port, a host or a server that is another one."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from typing import Literal

import grpc
import pytest

from ssd_triton.client import DetectorClient, ServerUnreachableError
from ssd_triton.client.endpoint import host_port, parse_endpoint
from ssd_triton.client.errors import ClientError
from ssd_triton.client.transport import make_transport
from ssd_triton.common.errors import ConfigError
from tests.conftest import free_url

Protocol = Literal["grpc", "http"]


@pytest.mark.parametrize(
    ("url", "protocol", "tls", "target", "is_loopback"),
    [
        ("localhost:8001", "grpc", False, "localhost:8001", True),
        ("127.0.0.2:1", "http", False, "127.0.0.2:1", True),
        ("triton.example:65535", "grpc", True, "triton.example:65535", False),
        ("grpc://a-b_c.d:8001", "grpc", False, "a-b_c.d:8001", False),
        ("GRPCS://host:8001/", "grpc", True, "host:8001", False),
        ("http://localhost:8000/", "http", False, "localhost:8000", True),
        ("http://host", "http", False, "host:80", False),
        ("https://host", "http", True, "host:443", False),
        ("https://host/models/triton", "http", True, "host:443/models/triton", False),
        ("[::1]:8001", "grpc", False, "[::1]:8001", True),
        ("http://[2001:db8::1]:8000", "http", False, "[2001:db8::1]:8000", False),
        ("ipv4:127.0.0.1:1,127.0.0.1:2", "grpc", False, "ipv4:127.0.0.1:1,127.0.0.1:2", True),
        ("ipv4:127.0.0.1:1,10.0.0.1:2", "grpc", False, "ipv4:127.0.0.1:1,10.0.0.1:2", False),
        ("ipv6:[::1]:1,[::1]:2", "grpc", False, "ipv6:[::1]:1,[::1]:2", True),
        ("dns:///replicas:8001", "grpc", False, "dns:///replicas:8001", False),
        ("unix:/run/triton.sock", "grpc", False, "unix:/run/triton.sock", False),
    ],
)
def test_addresses(url: str, protocol: Protocol, tls: bool, target: str, is_loopback: bool) -> None:
    endpoint = parse_endpoint(url, protocol, tls=tls)
    assert (endpoint.target, endpoint.is_loopback) == (target, is_loopback)
    assert parse_endpoint(endpoint.target, protocol, tls=tls) == endpoint


@pytest.mark.parametrize(
    ("url", "protocol", "words"),
    [
        ("", "grpc", "got no host"),
        (":8001", "grpc", "got no host"),
        ("localhost", "grpc", "got no port in the address 'localhost', expected one such as localhost:8001"),
        ("localhost:", "http", "got the port ''"),
        ("localhost:http", "http", "got the port 'http'"),
        ("localhost:0", "grpc", "got the port '0'"),
        ("localhost:65536", "grpc", "got the port '65536'"),
        ("localhost:" + "9" * 5000, "grpc", "got the port"),
        ("localhost:٣", "grpc", "got the port"),
        ("::1", "grpc", "expected one such as localhost:8001 or [::1]:8001"),
        ("::1:8001", "grpc", "more than one colon outside brackets"),
        ("[::1]", "grpc", "got no port"),
        ("[::1]8001", "grpc", "no IPv6 address in the brackets"),
        ("[localhost]:8001", "grpc", "no IPv6 address in the brackets"),
        ("a b:8001", "grpc", "got the host 'a b'"),
        ("user@host:8001", "grpc", "got the host 'user@host'"),
        ("host:8001/v2", "grpc", "got the path /v2"),
        ("ftp://host:21", "grpc", "got the scheme ftp://"),
        ("dns:///host:1", "http", "got the scheme dns://"),
        ("ipv4:127.0.0.1", "grpc", "got no port"),
        ("http://host:8000", "grpc", "--protocol http"),
        ("grpc://host:8001", "http", "--protocol grpc"),
        ("https://host:8000", "http", "without TLS, expected the same of both; add --ssl"),
    ],
)
def test_what_is_no_address(url: str, protocol: Protocol, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        DetectorClient(url, protocol=protocol)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_scheme_without_tls_for_a_client_with_it() -> None:
    with pytest.raises(ConfigError, match="with TLS, expected the same of both; write http"):
        parse_endpoint("http://host:8000", "http", tls=True)


def test_brackets_are_for_ipv6_alone() -> None:
    assert (host_port("localhost", 1), host_port("::1", 2)) == ("localhost:1", "[::1]:2")


# --- What is at an address --------------------------------------------------------------------------------------------


class _Page(http.server.BaseHTTPRequestHandler):
    """Answers everything with a page, as many a web server does."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "9")
        self.end_headers()
        self.wfile.write(b"<html/>\r\n")

    def log_message(self, *_: object) -> None:
        """Keep the output of the tests clean."""


@pytest.fixture
def http_url() -> Iterator[str]:
    """A server that speaks HTTP and is not Triton."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Page) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@contextmanager
def grpc_server(host: str) -> Iterator[str]:
    """A server that speaks gRPC, with no service at all."""
    server = grpc.server(ThreadPoolExecutor(2))
    url = host_port(host, server.add_insecure_port(host_port(host, 0)))
    server.start()
    yield url
    server.stop(grace=None).wait()


def problem(url: str, protocol: Protocol) -> ClientError:
    """What a client finds at an address."""
    with (
        closing(make_transport(protocol, url, timeout_s=10)) as transport,
        pytest.raises(ClientError) as caught,
    ):
        transport.server_version()
    assert "\n" not in str(caught.value)
    return caught.value


def test_the_port_of_http_given_to_grpc(http_url: str) -> None:
    found = problem(http_url, "grpc")
    assert isinstance(found, ServerUnreachableError)
    assert "got a port of HTTP, expected one of gRPC (by default 8001); give that port, or --protocol http" in str(
        found
    )


def test_the_port_of_grpc_given_to_http() -> None:
    with grpc_server("127.0.0.1") as url:
        found = problem(url, "http")
    assert isinstance(found, ServerUnreachableError)
    assert "got a port of gRPC, expected one of HTTP (by default 8000); give that port, or --protocol grpc" in str(
        found
    )


def test_a_web_server_that_is_not_triton(http_url: str) -> None:
    assert "got an answer that is not JSON" in str(problem(http_url, "http"))


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_an_unknown_host(protocol: Protocol) -> None:
    found = problem("nowhere.invalid:8001", protocol)
    assert isinstance(found, ServerUnreachableError)
    assert str(found).startswith("nowhere.invalid:8001: unknown host (")


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_nothing_answers(protocol: Protocol) -> None:
    assert "no Triton server answers at" in str(problem(free_url(), protocol))


def test_ipv6() -> None:
    """The answer of a server without services shows that it was reached."""
    try:
        running = grpc_server("::1")
        with running as url:
            assert url.startswith("[::1]:")
            assert "no Triton server answers" not in str(problem(url, "grpc"))
    except RuntimeError as error:
        pytest.skip(f"no IPv6 on this machine: {error}")
