"""The health check in HAProxy's configuration."""

from __future__ import annotations

import re

from ssd_triton.measuring.replicas.haproxy import CONFIG

SERVING = bytes([0, 0, 0, 0, 2, 8, 1])
"""gRPC's frame of a HealthCheckResponse with status SERVING: not compressed, two bytes, field 1 = 1."""


def literal(name: bytes, value: str) -> bytes:
    """A header field of HPACK (RFC 7541, 6.2.2) that is not indexed, its value not compressed."""
    return name + bytes([len(value)]) + value.encode()


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """A frame of HTTP/2 (RFC 9113, 4.1)."""
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def test_the_health_check_is_grpc_s() -> None:
    """The bytes in the configuration are a call of grpc.health.v1.Health/Check."""
    fields = [
        b"\x83\x86",  # :method POST, :scheme http, of HPACK's static table
        literal(b"\x04", "/grpc.health.v1.Health/Check"),  # :path
        literal(b"\x01", "triton"),  # :authority
        literal(b"\x0f\x10", "application/grpc"),  # content-type
        literal(b"\x00\x02te", "trailers"),
    ]
    expected = [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        frame(0x4, 0, 0, b""),  # SETTINGS
        frame(0x1, 0x4, 1, b"".join(fields)),  # HEADERS, END_HEADERS
        frame(0x0, 0x1, 1, bytes(5)),  # DATA, END_STREAM: an empty message
    ]
    text = CONFIG.read_text()
    assert [bytes.fromhex(found) for found in re.findall(r"send-binary (\w+)", text)] == expected
    assert re.findall(r"expect binary (\w+)", text) == [SERVING.hex()]
