"""Sends requests that no client library would send, and classifies their outcomes."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import struct
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import Any, Literal

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from ssd_triton.client.endpoint import host_port, is_loopback
from ssd_triton.common.errors import UserError

Protocol = Literal["grpc", "http"]
TIMEOUT_S = 20.0
"""Longest wait for the outcome of one request: the decoder's own limit is 2 s, but good requests take time as well."""
_MAX_REASON_CHARACTERS = 300
_REFUSALS = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.OUT_OF_RANGE,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.UNIMPLEMENTED,
}
_BROKEN = ("Socket closed", "Connection reset", "Broken pipe", "GOAWAY", "failed to connect", "Connection refused")
"""Words in gRPC's UNAVAILABLE that show a lost connection; a full queue is UNAVAILABLE too."""


class AttackError(UserError):
    """An attack cannot begin: the server is on another machine, or does not answer."""


class Outcome(str, Enum):
    """Outcome of a hostile request."""

    ANSWERED = "answered"
    REFUSED = "refused"
    CLOSED = "closed"
    """The connection was closed without an answer."""
    LEFT = "left"
    """The client left without waiting for an answer, as intended."""
    LATE = "late"
    """No answer within :data:`TIMEOUT_S`."""
    FAILED = "failed"
    """The server reported a fault on its side."""


@dataclass(frozen=True)
class AttackAnswer:
    """Outcome of a hostile request, with the server's message."""

    outcome: Outcome
    reason: str = ""


@dataclass(frozen=True)
class AttackedServer:
    """A server on this machine.

    Attributes:
        host: A loopback address, IPv6 without brackets.
        grpc_port: Port of gRPC.
        http_port: Port of HTTP.

    Raises:
        AttackError: The address is not a loopback address.
    """

    host: str
    grpc_port: int
    http_port: int

    def __post_init__(self) -> None:
        if not is_loopback(self.host):
            raise AttackError(
                f"got the host {self.host}, expected loopback such as 127.0.0.1: an attack runs on the machine of its "
                "server; set --host"
            )

    def url(self, protocol: Protocol) -> str:
        """Return ``host:port`` of gRPC or HTTP."""
        return host_port(self.host, self.grpc_port if protocol == "grpc" else self.http_port)

    @cached_property
    def channel(self) -> grpc.Channel:
        """A gRPC channel for messages of any size, which :meth:`close` closes."""
        options = [
            *((f"grpc.max_{way}_message_length", -1) for way in ("send", "receive")),
            *((f"grpc.{name}_reconnect_backoff_ms", 200) for name in ("initial", "max")),
        ]
        return grpc.insecure_channel(self.url("grpc"), options)

    @cached_property
    def stub(self) -> Any:
        """The stub with Triton's calls over the channel."""
        return service_pb2_grpc.GRPCInferenceServiceStub(self.channel)

    def close(self) -> None:
        """Close the channel."""
        self.channel.close()

    def connect(self, protocol: Protocol) -> socket.socket:
        """Open a plain TCP connection."""
        port = self.grpc_port if protocol == "grpc" else self.http_port
        return socket.create_connection((self.host, port), timeout=TIMEOUT_S)

    def is_model_ready(self, model: str) -> bool:
        """Whether a model is served; False if nothing answers."""
        return self.http("GET", f"/v2/models/{model}/ready").outcome is Outcome.ANSWERED

    # --- HTTP ---------------------------------------------------------------------------------------------------------

    def http(self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None) -> AttackAnswer:
        """Send one HTTP request on a new connection.

        Args:
            method: Method, such as ``POST``.
            path: Path, sent unchanged.
            body: Body, sent unchanged.
            headers: Headers in addition to ``Content-Length``.
        """
        connection = http.client.HTTPConnection(self.host, self.http_port, timeout=TIMEOUT_S)

        def ask() -> AttackAnswer:
            connection.request(method, path, body, dict(headers or {}))
            response = connection.getresponse()
            text = response.read().decode(errors="replace")
            return AttackAnswer(_of_status(response.status), text[:_MAX_REASON_CHARACTERS])

        with contextlib.closing(connection):
            return of_connection(ask)

    def http_json(self, model: str, request: object) -> AttackAnswer:
        """Send an inference request as JSON."""
        return self.http_infer(model, json.dumps(request).encode())

    def http_infer(self, model: str, header: bytes, binary: bytes = b"", **headers: str) -> AttackAnswer:
        """Send an inference request with a JSON header and binary data to a model."""
        length = {"Inference-Header-Content-Length": str(len(header))}
        return self.http("POST", f"/v2/models/{model}/infer", header + binary, {**length, **headers})

    def http_images(self, model: str, images: Sequence[bytes]) -> AttackAnswer:
        """Send encoded images to a model, as clients do."""
        binary = _as_bytes_tensor(images)
        tensor = {
            "name": "IMAGE",
            "shape": [len(images), 1],
            "datatype": "BYTES",
            "parameters": {"binary_data_size": len(binary)},
        }
        return self.http_infer(model, json.dumps({"inputs": [tensor]}).encode(), binary)

    # --- gRPC ---------------------------------------------------------------------------------------------------------

    def grpc(self, request: Any, *, compression: grpc.Compression | None = None) -> AttackAnswer:
        """Send one inference request over gRPC."""
        return of_call(lambda: self.stub.ModelInfer(request, timeout=TIMEOUT_S, compression=compression))

    def grpc_images(self, model: str, images: Sequence[bytes]) -> AttackAnswer:
        """Send encoded images to a model, as clients do."""
        return self.grpc(infer_request(model, "IMAGE", "BYTES", [len(images), 1], _as_bytes_tensor(images)))


def infer_request(model: str, name: str, datatype: str, shape: Sequence[int], raw: bytes | None) -> Any:
    """Return an inference request with one input; ``raw`` None leaves out its content."""
    request = service_pb2.ModelInferRequest(model_name=model)
    request.inputs.add(name=name, datatype=datatype).shape.extend(shape)
    if raw is not None:
        request.raw_input_contents.append(raw)
    return request


def of_call(call: Callable[[], Any]) -> AttackAnswer:
    """Make a gRPC call, and return its outcome."""
    try:
        call()
    except grpc.RpcError as error:
        code, words = error.code(), str(error.details())[:_MAX_REASON_CHARACTERS]
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            return AttackAnswer(Outcome.LATE, words)
        if code is grpc.StatusCode.CANCELLED:
            return AttackAnswer(Outcome.LEFT, words)
        if code is grpc.StatusCode.UNAVAILABLE:
            return AttackAnswer(Outcome.CLOSED if any(word in words for word in _BROKEN) else Outcome.REFUSED, words)
        return AttackAnswer(Outcome.REFUSED if code in _REFUSALS else Outcome.FAILED, f"{code.name}: {words}")
    return AttackAnswer(Outcome.ANSWERED)


def half_sent(target: AttackedServer, protocol: Protocol, begin: bytes) -> AttackAnswer:
    """Send the beginning of a request, close the sending side, and wait for the server's reaction."""

    def ask() -> AttackAnswer:
        with target.connect(protocol) as connection:
            connection.sendall(begin)
            connection.shutdown(socket.SHUT_WR)
            connection.settimeout(2.0)
            status = connection.recv(64)
        if not status:
            return AttackAnswer(Outcome.CLOSED)
        if not status.startswith(b"HTTP/1.1 "):
            return AttackAnswer(Outcome.LEFT, "bytes of HTTP/2")
        return AttackAnswer(_of_status(int(status[9:12])), status[9:].decode(errors="replace"))

    answer = of_connection(ask)
    return AttackAnswer(Outcome.LEFT) if answer.outcome is Outcome.LATE else answer


def dripped(
    target: AttackedServer, protocol: Protocol, begin: bytes, *, seconds: float, every_s: float = 0.1
) -> AttackAnswer:
    """Send the beginning of a request, then one byte at a time until the time is over or the server closes."""

    def ask() -> AttackAnswer:
        with target.connect(protocol) as connection:
            connection.sendall(begin)
            end_s = time.monotonic() + seconds
            while time.monotonic() < end_s:
                connection.sendall(b" ")
                time.sleep(every_s)
        return AttackAnswer(Outcome.LEFT)

    return of_connection(ask)


def of_connection(call: Callable[[], AttackAnswer]) -> AttackAnswer:
    """Make a call that uses a connection, and return its answer, or how the connection broke."""
    try:
        return call()
    except TimeoutError as error:
        return AttackAnswer(Outcome.LATE, str(error))
    except (OSError, http.client.HTTPException) as error:
        return AttackAnswer(Outcome.CLOSED, f"{type(error).__name__}: {error}")


def _of_status(status: int) -> Outcome:
    if status < http.client.BAD_REQUEST:
        return Outcome.ANSWERED
    # 503: a full queue, or a proxy that cannot reach its server.
    return Outcome.REFUSED if status < 500 or status in (501, 503, 505) else Outcome.FAILED


def _as_bytes_tensor(parts: Sequence[bytes]) -> bytes:
    return b"".join(struct.pack("<I", len(part)) + part for part in parts)
