"""Malformed bodies and tensors: shapes whose size overflows, wrong lengths, JSON without an end."""

from __future__ import annotations

import gzip
import random
import struct
import zlib
from functools import cache
from typing import Any

from ssd_triton.common.model_names import PREPROCESS
from ssd_triton.measuring.attack.sending import infer_request

_DEPTHS = (100, 1000, 5000)
"""Levels of nested JSON."""


def wrapping_shapes() -> list[list[int]]:
    """Return shapes whose number of elements overflows to 0 in 64 bits."""
    return [[1, 2**32, 2**32, 3], [1, 2**33, 2**31, 3], [2**32, 2**32, 1, 3], [1, 2**62, 4, 3]]


def wrong_shapes() -> list[list[int]]:
    """Return shapes with negative or huge dimensions, with too many or too few of them, or with none."""
    return [
        [2**32, 2**32],
        [2**62, 4],
        [2**63 - 1, 2],
        [1, 2**63 - 1, 2**63 - 1, 3],
        [1, -1],
        [-1, 1],
        [-(2**63), 1],
        [1, -8, -8, 3],
        [0, 1],
        [1, 0, 0, 3],
        [1, 8, 8, 4],
        [1, 2**31],
        [2**31, 1],
        [64, 2**40, 1, 3],
        [1] * 1000,
        [],
    ]


@cache
def broken_requests() -> tuple[Any, ...]:
    """Return gRPC requests whose tensors contradict their declared lengths, counts, types or names."""
    one = struct.pack("<I", 4) + b"none"
    payloads = (
        b"",
        b"\1\0",
        struct.pack("<I", 100) + b"abc",
        struct.pack("<I", 2**32 - 1) + b"a",
        one + b"zz",
        2 * one,
    )
    found = [infer_request(model, "IMAGE", "BYTES", [1, 1], raw) for raw in payloads for model in ("ssd", PREPROCESS)]
    for name, datatype in (
        ("IMAGE", "UINT8"),
        ("IMAGE", "FP64"),
        ("IMAGE", ""),
        ("", "BYTES"),
        ("x" * 10_000, "BYTES"),
    ):
        found.append(infer_request("ssd", name, datatype, [1, 1], one))
    without = infer_request("ssd", "IMAGE", "BYTES", [1, 1], one)
    del without.inputs[:]
    twice = infer_request("ssd", "IMAGE", "BYTES", [1, 1], one)
    twice.inputs.append(twice.inputs[0])
    twice.raw_input_contents.append(one)
    other_output = infer_request("ssd", "IMAGE", "BYTES", [1, 1], one)
    other_output.outputs.add(name="no such output")
    both = infer_request("ssd", "IMAGE", "BYTES", [1, 1], one)
    both.inputs[0].contents.bytes_contents.append(b"none")
    sequence = infer_request("ssd", "IMAGE", "BYTES", [1, 1], one)
    sequence.parameters["sequence_id"].int64_param = -1
    return (*found, without, twice, other_output, both, sequence)


@cache
def compressed_body(encoding: str, size_bytes: int) -> bytes:
    """Return zeros, compressed to a thousandth of their size with ``gzip`` or ``deflate``."""
    return gzip.compress(bytes(size_bytes)) if encoding == "gzip" else zlib.compress(bytes(size_bytes))


def nested_json(rng: random.Random) -> bytes:
    """Return a request whose tensor is a deeply nested list, complete or cut off."""
    depth = rng.choice(_DEPTHS)
    begin = b'{"inputs":[{"name":"IMAGE","shape":[1,1],"datatype":"BYTES","data":'
    end = b"]" * depth + b"}]}" if rng.random() < 0.5 else b""
    return begin + rng.choice((b"[" * depth + end, b'{"a":' * depth))
