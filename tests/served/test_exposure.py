"""What the shipped proxies refuse, and what they let through, in front of a real server."""

from __future__ import annotations

import gzip
import json
import select
import time
from collections.abc import Callable

import numpy as np
import psutil
import pytest
import tritonclient.grpc as grpc_client
from tritonclient.utils import InferenceServerException

from ssd_triton.client import ClientError, DetectorClient
from ssd_triton.client.transport import as_input
from ssd_triton.serving.server import EmbeddedServer
from tests.served.helpers import assert_equal
from tests.served.proxies import BINARY, INFER, PROTOCOLS, Front, answer_to, http_call, request_bytes

pytestmark = pytest.mark.usefixtures("slow_clients")
GREW_MIB = 50.0


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
