"""What the shipped proxies refuse, and what they let through, in front of a real server."""

from __future__ import annotations

import contextlib
import gzip
import json
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
import tritonclient.grpc as grpc_client
from tritonclient.utils import InferenceServerException

from ssd_triton.client import ClientError, DetectorClient
from ssd_triton.client.transport import as_input
from ssd_triton.config import Config
from ssd_triton.serving.server import EmbeddedServer
from tests.served.helpers import assert_equal
from tests.served.proxies import Certificates, Front, haproxy, nginx

PROTOCOLS = ("grpc", "http")
INFER = "/v2/models/ssd/infer"
BINARY = {"Inference-Header-Content-Length": "0", "Content-Type": "application/octet-stream"}
"""The body is the one input."""
GREW_MIB = 50.0


@pytest.fixture(scope="module")
def exposed_server(config: Config, light_repository: Path) -> Iterator[EmbeddedServer]:
    """As it is to be started behind a proxy."""
    settings = config.server.for_one_run().model_copy(update={"expose": True})
    with EmbeddedServer(light_repository, "onnx_fp32", settings) as running:
        yield running


@pytest.fixture(scope="module", params=["nginx", "haproxy"])
def front(
    request: pytest.FixtureRequest,
    exposed_server: EmbeddedServer,
    certificates: Certificates,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Front]:
    start = {"nginx": nginx, "haproxy": haproxy}[request.param]
    with start(exposed_server, certificates, tmp_path_factory.mktemp(request.param)) as running:
        for protocol in PROTOCOLS:
            with running.client(protocol) as client:
                client.wait_ready(timeout_s=30)  # a proxy's first check of its server may still be in flight
        yield running


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


def memory_mib(server: EmbeddedServer) -> float:
    """Resident in the server and the processes of its models."""
    root = psutil.Process(server.pid)
    return sum(process.memory_info().rss for process in (root, *root.children(recursive=True))) / 2**20


# --- what is offered --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_detections_are_those_of_the_server(
    front: Front, light_grpc_detector: DetectorClient, protocol: str, photograph: bytes
) -> None:
    with front.client(protocol) as client:
        found = [client.detect(photograph), *client.map([photograph])]
        if protocol == "grpc":
            found += client.stream([photograph] * 3)
        assert client.retries == 0
    expected = light_grpc_detector.detect(photograph)
    assert len(expected) > 0
    for one in found:
        assert_equal(one, expected)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_frames_are_answered_too(front: Front, protocol: str, photograph_rgb: np.ndarray) -> None:
    """As files, where the proxy has no `ssd_frames`; a region of shared memory cannot be registered."""
    with front.client(protocol) as client:
        client.wait_ready(timeout_s=0)
        assert len(client.detect_frame(photograph_rgb)) > 0


def test_a_raw_picture_is_answered(front: Front, photograph: bytes) -> None:
    status, text = http_call(front, "POST", INFER, *BINARY.items(), body=photograph)
    assert (status, "detection_boxes" in text) == (200, True)


@pytest.mark.parametrize(
    "path",
    [
        *(f"/v2/models/{name}/infer" for name in ("ssd_frames", "ssd_detector", "ssd_preprocess", "ssd_postprocess")),
        *(
            "/v2/models/ssd/versions/1/infer",
            "/v2/models/ssd/generate",
            "/v2/models/ssd/infer/",
            "/v2/models/ssd_/infer",
        ),
        *("/v2/repository/index", "/v2/repository/models/ssd/unload", "/v2/systemsharedmemory/status", "/v2/logging"),
        "/v2/models/ssd_detector%2f..%2fssd_frames/infer",
    ],
)
def test_http_offers_nothing_else(front: Front, path: str) -> None:
    status, text = http_call(front, "POST", path, *BINARY.items(), body=b"x")
    reason = "unknown model or endpoint" if path.startswith("/v2/models/") else "not offered here"
    assert (status, reason in text) == (404, True)


@pytest.mark.parametrize(
    "call", ["get_model_repository_index", "get_system_shared_memory_status", "get_log_settings", "get_trace_settings"]
)
def test_grpc_offers_nothing_else(front: Front, call: str) -> None:
    with pytest.raises(InferenceServerException, match=r"404|not offered here"):
        getattr(front.channel(), call)()


def test_grpc_offers_one_model_where_the_proxy_sees_names(front: Front, photograph: bytes) -> None:
    """NGINX sees no bodies: what it stands in front of has to load `ssd` alone."""
    calls: dict[str, Callable[[grpc_client.InferenceServerClient, str], object]] = {
        "ModelConfig": lambda client, model: client.get_model_config(model),
        "ModelInfer": lambda client, model: client.infer(model, [picture(photograph)]),
    }
    channel = front.channel()
    for call in calls.values():
        assert call(channel, "ssd")
        if front.name == "haproxy":
            with pytest.raises(InferenceServerException, match="unknown model: expected ssd"):
                call(channel, "ssd_preprocess")
        else:
            assert call(channel, "ssd_preprocess")


def picture(image: bytes) -> grpc_client.InferInput:
    return as_input(grpc_client, "IMAGE", np.array([[image]], dtype=object))


# --- bodies -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encodings", [["gzip"], ["deflate"], ["gzip", "identity"], ["identity", "gzip"], ["Gzip"]])
def test_compressed_bodies_are_not_inflated(front: Front, encodings: list[str]) -> None:
    """Straight to Triton, each would take 200 MB and keep it."""
    body = gzip.compress(bytes(200_000_000), compresslevel=1)
    before_mib = memory_mib(front.server)
    headers = [("Content-Encoding", value) for value in encodings]
    statuses = [http_call(front, "POST", INFER, *BINARY.items(), *headers, body=body)[0] for _ in range(3)]
    # Of two headers NGINX checks the first and drops both: the body is then a picture that cannot be read.
    assert set(statuses) <= {400, 415, 500}
    assert statuses[0] == 415 or encodings == ["identity", "gzip"]
    assert memory_mib(front.server) - before_mib < GREW_MIB


def test_compressed_messages_are_not_inflated(front: Front) -> None:
    before_mib = memory_mib(front.server)
    zeros = picture(bytes(60_000_000))
    for algorithm in ("gzip", "deflate"):
        with pytest.raises(InferenceServerException, match="expected grpc-encoding identity"):
            front.channel().infer("ssd", [zeros], compression_algorithm=algorithm)
    assert memory_mib(front.server) - before_mib < GREW_MIB


def test_a_compressed_message_that_says_it_is_none_is_not_inflated(front: Front) -> None:
    """The flag of the message alone, and beside a header that is sent twice."""
    name = b"\x0a\x03ssd"
    body = gzip.compress(name + b"\x3a\x80\x84\xaf\x5f" + bytes(200_000_000), compresslevel=1)
    before_mib = memory_mib(front.server)
    for encodings in ([], ["identity", "gzip"], ["gzip"]):
        send_message(front, b"\1", body, encodings)
    assert memory_mib(front.server) - before_mib < GREW_MIB
    front.server.check()


def send_message(front: Front, flag: bytes, message: bytes, encodings: list[str]) -> None:
    """Call ModelInfer by frames of HTTP/2 (RFC 9113, 4.1), fields as HPACK's literals (RFC 7541, 6.2.2)."""

    def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
        return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload

    def literal(name: str, value: str) -> bytes:
        return b"".join([b"\0", bytes([len(name)]), name.encode(), bytes([len(value)]), value.encode()])

    fields = [(":method", "POST"), (":scheme", "https"), (":path", "/inference.GRPCInferenceService/ModelInfer")]
    fields += [(":authority", "x"), ("content-type", "application/grpc"), ("te", "trailers")]
    fields += [("grpc-encoding", value) for value in encodings]
    data = flag + len(message).to_bytes(4, "big") + message
    # Within the first window of 65,535 bytes; the rest of the message never comes.
    parts = [data[begin : begin + 16000] for begin in range(0, min(len(data), 64000), 16000)]
    frames = [frame(0x4, 0, 0, b""), frame(0x1, 0x4, 1, b"".join(literal(*field) for field in fields))]
    frames += [frame(0x0, 0, 1, part) for part in parts]
    with front.connect("grpc") as connection:
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"".join(frames))
        deadline_s = time.monotonic() + 1
        while time.monotonic() < deadline_s and select.select([connection], [], [], 0.1)[0]:
            if not connection.recv(65536):
                return


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_what_is_too_large_is_refused(front: Front, protocol: str, photograph: bytes) -> None:
    """HAProxy closes once it has answered, and so a client that is still sending may not see the reason."""
    if protocol == "http":
        status, text = http_call(front, "POST", INFER, *BINARY.items(), body=b"x", length=100_000_000)
        assert (status, "at most 64 MiB" in text) == (413, True)
    with front.client(protocol) as client:
        with pytest.raises(ClientError, match=r"413|too large" if front.name == "nginx" else None):
            client.detect(bytes(100_000_000))
        assert len(client.detect(photograph)) > 0


def test_what_kills_triton_is_kept_away(front: Front) -> None:
    """Sent straight to Triton 24.10, the first and the last of these end it with a segmentation fault."""
    chunks = b"1\r\na\r\n" * 300_000 + b"0\r\n\r\n"
    nested = b'{"inputs":' + b"[" * 5_000_000
    short = ("Inference-Header-Content-Length", "9999")
    with front.connect("http") as connection:
        chunked = request_bytes("POST", INFER, [("Transfer-Encoding", "chunked"), short], chunks)
        assert answer_to(connection, chunked)[0] in (400, 411, 500)
    front.server.check()
    for headers, body in (
        ([short], nested[:9999]),
        ([], nested),
        ([("Inference-Header-Content-Length", "99999")], nested),
    ):
        assert http_call(front, "POST", INFER, *headers, body=body)[0] in (400, 500)
        front.server.check()


# --- shared memory ----------------------------------------------------------------------------------------------------


def shared_memory_header() -> str:
    parameters = {"shared_memory_region": "frames", "shared_memory_offset": 0, "shared_memory_byte_size": 100}
    tensor = {"name": "IMAGE", "shape": [1, 1], "datatype": "BYTES", "parameters": parameters}
    return json.dumps({"inputs": [tensor]})


@pytest.mark.parametrize("escape", [False, True])
def test_http_regions_are_refused_where_the_proxy_sees_them(front: Front, escape: bool) -> None:
    """NGINX sees no bodies: behind it Triton refuses, as long as nobody may register a region."""
    text = shared_memory_header()
    if escape:
        text = text.replace("shared_memory_region", "\\u0073hared_memory_region").replace(
            "shared_memory", "\\u0073hared_memory"
        )
        assert json.loads(text) == json.loads(shared_memory_header())
    length = ("Inference-Header-Content-Length", str(len(text)))
    status, answer = http_call(front, "POST", INFER, length, body=text.encode())
    if front.name == "haproxy":
        assert (status, "got a region of shared memory" in answer) == (403, True)
    else:
        assert status in (400, 404, 500)
        assert "frames" in answer


def test_grpc_regions_are_refused_where_the_proxy_sees_them(front: Front) -> None:
    tensor = grpc_client.InferInput("IMAGE", [1, 1], "BYTES")
    tensor.set_shared_memory("frames", 100)
    reason = "got a region of shared memory" if front.name == "haproxy" else "frames"
    with pytest.raises(InferenceServerException, match=reason):
        front.channel().infer("ssd", [tensor])


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


def wait_until_closed(connection: socket.socket, timeout_s: float) -> None:
    """Wait until the other side closes; what it says before is dropped."""
    connection.settimeout(timeout_s)
    with contextlib.suppress(ConnectionResetError, ssl.SSLError):
        while connection.recv(65536):
            pass


def test_slow_clients_are_cut_off(front: Front) -> None:
    """No handshake, no headers, headers a byte at a time."""
    host, port = front.urls["http"].split(":")
    silent = socket.create_connection((host, int(port)))
    empty, slow = front.connect("http"), front.connect("http")
    slow.sendall(b"GET /v2 HTTP/1.1\r\nHost: x\r\nA: ")
    stop = threading.Event()

    def trickle() -> None:
        with contextlib.suppress(OSError):
            while not stop.wait(1):
                slow.sendall(b"a")

    thread = threading.Thread(target=trickle)
    thread.start()
    begin_s = time.monotonic()
    try:
        for connection in (silent, empty, slow):
            wait_until_closed(connection, timeout_s=15)
            assert time.monotonic() - begin_s < 14
    finally:
        stop.set()
        thread.join()
        for connection in (silent, empty, slow):
            connection.close()


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
