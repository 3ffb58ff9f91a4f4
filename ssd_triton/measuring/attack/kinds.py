"""The kinds of hostile requests: how each is made and sent, and which outcomes are right."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache, partial

import grpc
from tritonclient.grpc import service_pb2

from ssd_triton.common.model_names import DETECTOR, POSTPROCESS, PREPROCESS, PREPROCESS_FRAMES
from ssd_triton.measuring.attack.bodies import (
    broken_requests,
    compressed_body,
    nested_json,
    wrapping_shapes,
    wrong_shapes,
)
from ssd_triton.measuring.attack.files import HOSTILE_FILES, empty_picture
from ssd_triton.measuring.attack.sending import (
    AttackAnswer,
    AttackedServer,
    Outcome,
    Protocol,
    dripped,
    half_sent,
    infer_request,
    of_call,
)
from ssd_triton.measuring.fuzz.corpus import make_corpus
from ssd_triton.measuring.fuzz.mutation import mutate
from ssd_triton.measuring.request_cases import refused_images

IMAGES, FRAMES = "ssd", "ssd_frames"
"""Ensembles for encoded images and for raw frames."""
PROTOCOLS: tuple[Protocol, ...] = ("grpc", "http")
_REFUSED = frozenset({Outcome.REFUSED})
_SERVED = frozenset({Outcome.ANSWERED, Outcome.REFUSED})
_REFUSED_OR_CLOSED = frozenset({Outcome.REFUSED, Outcome.CLOSED})
_TOLD = frozenset({Outcome.REFUSED, Outcome.CLOSED, Outcome.FAILED})
"""Outcomes for input that cannot be parsed, which Triton may report as its own error (500, INTERNAL)."""
_UNFINISHED = frozenset({*_TOLD, Outcome.LEFT})
_BODY_BYTES = 20_000_000
_LARGE_FRAME_PX = 5000
"""Side of a large legal frame, which has half of ``max_pixels``."""
_IDLE_CONNECTIONS, _IDLE_S = 200, 1.0
_CANCELLING_THREADS, _CANCELLED_CALLS, _CANCELLING_S = 8, 5000, 5.0
"""Limits of one burst of cancelled calls: threads, calls of each thread, and seconds."""
_OPEN_STREAMS = 20
_RESTART_APART_S = 300.0
"""Time between two requests of a kind that may end the server: ``serve`` allows five restarts in ten minutes."""
_DRIP_S = 1.0

Send = Callable[[AttackedServer, random.Random], AttackAnswer]
"""Sends one request, which depends only on the random numbers, and returns its outcome."""


@dataclass(frozen=True)
class Kind:
    """One kind of hostile request.

    Attributes:
        name: Name for reports.
        protocol: ``gRPC``, ``HTTP``, or both in turns.
        send: Sends one request.
        right: Outcomes that are right.
        reason: Words that a refusal must contain.
        weight: Relative frequency; mutated images have 100.
        apart_s: Least time between two requests, so that kinds that take much memory or a restart do not dominate.
        may_restart: Whether the server may die of it, since no proxy or option can refuse such requests.
        model: Model without which the kind is skipped; None always sends it.
        prepare: Called before the attack, to make what all requests of the kind share.
    """

    name: str
    protocol: str
    send: Send
    right: frozenset[Outcome] = _REFUSED
    reason: str = ""
    weight: float = 1.0
    apart_s: float = 0.0
    may_restart: bool = False
    model: str | None = None
    prepare: Callable[[], object] = bool

    def is_right(self, answer: AttackAnswer) -> bool:
        """Whether an outcome is right for the kind."""
        words = answer.outcome is not Outcome.REFUSED or self.reason in answer.reason
        return answer.outcome in self.right and words


def all_kinds() -> list[Kind]:
    """Return all kinds of hostile requests."""
    return [*_image_kinds(), *_batch_kinds(), *_shape_kinds(), *_body_kinds(), *_call_kinds(), *_connection_kinds()]


# --- Images -----------------------------------------------------------------------------------------------------------


def _image_kinds() -> Iterator[Kind]:
    for name, file in HOSTILE_FILES.items():
        right = _REFUSED if file.reason else frozenset({Outcome.ANSWERED})
        yield _file_kind(name, file.make, right=right, reason=file.reason)
    for case in refused_images():
        yield _file_kind(case.name, partial(getattr, case, "encoded"), reason=case.reason or "")
    yield Kind("mutated image", "both", _images(_mutated), _SERVED, weight=100)


def _file_kind(
    name: str, make: Callable[[], bytes], *, count: int = 1, right: frozenset[Outcome] = _REFUSED, reason: str
) -> Kind:
    """Return a kind that sends ``count`` copies of one file in each request."""
    file = cache(make)
    return Kind(name, "both", _images(lambda rng: [file()] * count), right, reason, prepare=file)


def _images(make: Callable[[random.Random], list[bytes]]) -> Send:
    """Return a function that sends images from ``make`` to the ensemble, over either protocol."""

    def send(target: AttackedServer, rng: random.Random) -> AttackAnswer:
        ask = target.grpc_images if rng.random() < 0.5 else target.http_images
        return ask(IMAGES, make(rng))

    return send


@cache
def _corpus() -> Mapping[str, bytes]:
    return make_corpus()


def _mutated(rng: random.Random) -> list[bytes]:
    return [mutate(rng.randrange(2**31), rng.randrange(2**31), _corpus())[1]]


def _batch_kinds() -> Iterator[Kind]:
    for name, width_px, height_px in (("WEBP", 16383, 3050), ("PNG", 10_000, 5000), ("GIF", 10_000, 5000)):
        make = partial(empty_picture, name, width_px, height_px)
        yield _file_kind(f"batch of empty {name} pictures", make, count=64, reason="pixels in one request")
    one_bad = _images(lambda rng: [*[_corpus()["PNG"]] * 63, b"no image"])
    yield Kind("batch of one bad image in 64", "both", one_bad, reason="batch element 63")
    yield Kind("batch of 65", "both", _images(lambda rng: [_corpus()["PNG"]] * 65))


# --- Shapes -----------------------------------------------------------------------------------------------------------


def _shape_kinds() -> Iterator[Kind]:
    images = ((IMAGES, "IMAGE", "BYTES"), (PREPROCESS, "IMAGE", "BYTES"))
    frames = ((FRAMES, "FRAME", "UINT8"), (PREPROCESS_FRAMES, "FRAME", "UINT8"))
    yield Kind("wrong shape", "both", _shapes(images, wrong_shapes()), _TOLD, weight=5)
    yield Kind("wrapping shape", "both", _shapes(images, wrapping_shapes()), _TOLD, weight=5)
    # Triton refuses none of these for a model with open dimensions, and some of them crash it.
    yield Kind(
        "wrapping shape of a frame",
        "both",
        _shapes(frames, [*wrapping_shapes(), *wrong_shapes()]),
        _TOLD,
        apart_s=_RESTART_APART_S,
        may_restart=True,
        model=FRAMES,
    )


def _shapes(models: Sequence[tuple[str, str, str]], shapes: Sequence[list[int]]) -> Send:
    def send(target: AttackedServer, rng: random.Random) -> AttackAnswer:
        model, name, datatype = rng.choice(models)
        shape = rng.choice(shapes)
        if rng.random() < 0.5:
            return target.grpc(infer_request(model, name, datatype, shape, rng.choice((b"", b"\0" * 4))))
        tensor = {"name": name, "shape": shape, "datatype": datatype, "data": []}
        return target.http_json(model, {"inputs": [tensor]})

    return send


# --- Bodies -----------------------------------------------------------------------------------------------------------


def _body_kinds() -> Iterator[Kind]:
    for encoding in ("gzip", "deflate"):
        body = partial(compressed_body, encoding, _BODY_BYTES)
        yield Kind(f"{encoding} of zeros", "HTTP", _compressed(encoding), _TOLD, apart_s=20, prepare=body)
    yield Kind("gzip of zeros in gRPC", "gRPC", _compressed_call, _REFUSED_OR_CLOSED, apart_s=20)
    yield Kind("nested JSON", "HTTP", lambda target, rng: target.http_infer(IMAGES, nested_json(rng)), _TOLD)
    yield Kind("broken JSON", "HTTP", _broken_json, _TOLD, weight=10)
    yield Kind("broken request", "gRPC", _broken_call, weight=10)
    yield Kind("wrong length of the header", "HTTP", _wrong_header_length, _UNFINISHED, weight=3)
    yield Kind("bytes that are no request", "gRPC", _no_request, _TOLD, weight=3)


def _compressed(encoding: str) -> Send:
    def send(target: AttackedServer, rng: random.Random) -> AttackAnswer:
        body = compressed_body(encoding, _BODY_BYTES)
        return target.http("POST", f"/v2/models/{IMAGES}/infer", body, {"Content-Encoding": encoding})

    return send


def _compressed_call(target: AttackedServer, rng: random.Random) -> AttackAnswer:
    request = infer_request(IMAGES, "IMAGE", "BYTES", [1, 1], bytes(_BODY_BYTES))
    return target.grpc(request, compression=grpc.Compression.Gzip)


def _broken_json(target: AttackedServer, rng: random.Random) -> AttackAnswer:
    whole = b'{"inputs":[{"name":"IMAGE","shape":[1,1],"datatype":"BYTES","data":["x"]}]}'
    at = rng.randrange(len(whole))
    change = rng.choice((whole[:at], whole[:at] + rng.randbytes(4) + whole[at:], whole[:at] + b'":[' + whole[at + 3 :]))
    return target.http_infer(IMAGES, change)


def _broken_call(target: AttackedServer, rng: random.Random) -> AttackAnswer:
    return target.grpc(rng.choice(broken_requests()))


def _wrong_header_length(target: AttackedServer, rng: random.Random) -> AttackAnswer:
    header = rng.choice(("0", "1", "-1", "99999999999999999999", "4294967297", "x", ""))
    length = rng.choice((0, 10, 1000, 2**31, 2**63))
    begin = (
        f"POST /v2/models/{IMAGES}/infer HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n"
        f"Inference-Header-Content-Length: {header}\r\n\r\n"
    )
    return half_sent(target, "http", begin.encode() + b'{"inputs":')


def _no_request(target: AttackedServer, rng: random.Random) -> AttackAnswer:
    call = target.channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
    return of_call(lambda: call(rng.randbytes(rng.randrange(1, 2000)), timeout=10))


# --- Calls ------------------------------------------------------------------------------------------------------------


def _call_kinds() -> Iterator[Kind]:
    yield Kind("other model", "both", _other_model, weight=5)
    yield Kind("region of shared memory by name", "both", _region, _TOLD, weight=5)
    yield Kind("registration of shared memory", "both", _registration, _TOLD, weight=3)
    yield Kind("large legal frame", "gRPC", _large_frame, frozenset({Outcome.ANSWERED}), apart_s=30, model=FRAMES)
    yield Kind(
        "cancelled calls",
        "gRPC",
        _cancelled,
        frozenset({Outcome.LEFT, Outcome.CLOSED}),
        apart_s=_RESTART_APART_S,
        may_restart=True,
    )
    yield Kind("streams left open", "gRPC", _streams, frozenset({Outcome.LEFT, Outcome.CLOSED, *_REFUSED}), apart_s=5)


def _other_model(target: AttackedServer, rng: random.Random) -> AttackAnswer:
    names = (
        DETECTOR,
        POSTPROCESS,
        "x",
        "x" * 5000,
        "../ssd",
        "..%2f..%2fetc%2fpasswd",
        "%00",
        "ssd/versions/-1",
        "ssd/versions/99",
    )
    model = rng.choice(names)
    if rng.random() < 0.5:
        return target.grpc(infer_request(model, "IMAGE", "BYTES", [1, 1], b"\0\0\0\0"))
    return target.http_infer(model, b'{"inputs":[{"name":"IMAGE","shape":[1,1],"datatype":"BYTES","data":["x"]}]}')


def _region(target: AttackedServer, rng: random.Random) -> AttackAnswer:
    region = rng.choice(("", "ssd_frames_0", "input", "../x", "x" * 1000))
    size = rng.choice((0, 4, 2**40, -1))
    if rng.random() < 0.5:
        request = infer_request(IMAGES, "IMAGE", "BYTES", [1, 1], None)
        request.inputs[0].parameters["shared_memory_region"].string_param = region
        request.inputs[0].parameters["shared_memory_byte_size"].int64_param = size
        return target.grpc(request)
    parameters = {"shared_memory_region": region, "shared_memory_byte_size": size}
    tensor = {"name": "IMAGE", "shape": [1, 1], "datatype": "BYTES", "parameters": parameters}
    return target.http_json(IMAGES, {"inputs": [tensor]})


def _registration(target: AttackedServer, rng: random.Random) -> AttackAnswer:
    key = rng.choice(("/no-such-region-of-ssd-triton", "/../etc/passwd", "x" * 1000))
    kind = rng.choice(("system", "cuda"))
    name = f"attack-{rng.randrange(10**6)}"
    if kind == "system" and rng.random() < 0.5:
        request = service_pb2.SystemSharedMemoryRegisterRequest(name=name, key=key, offset=2**40, byte_size=2**62)
        return of_call(lambda: target.stub.SystemSharedMemoryRegister(request, timeout=10))
    system = b'{"key":"%s","offset":-1,"byte_size":4611686018427387904}' % key.encode()
    cuda = b'{"raw_handle":{"b64":"AAAA"},"device_id":0,"byte_size":1}'
    return target.http("POST", f"/v2/{kind}sharedmemory/region/{name}/register", system if kind == "system" else cuda)


def _large_frame(target: AttackedServer, rng: random.Random) -> AttackAnswer:
    side_px = _LARGE_FRAME_PX
    raw = bytes(3 * side_px * side_px)
    return target.grpc(infer_request(FRAMES, "FRAME", "UINT8", [1, side_px, side_px, 3], raw))


def _cancelled(target: AttackedServer, rng: random.Random) -> AttackAnswer:
    """Send a burst of calls from several threads, and cancel each as soon as it is sent."""
    request = infer_request(IMAGES, "IMAGE", "BYTES", [1, 1], b"\4\0\0\0none")
    end_s = time.monotonic() + _CANCELLING_S

    def cancel(_: int) -> None:
        for _ in range(_CANCELLED_CALLS):
            target.stub.ModelInfer.future(request, timeout=10).cancel()
            if time.monotonic() > end_s:
                return

    with ThreadPoolExecutor(_CANCELLING_THREADS) as pool:
        list(pool.map(cancel, range(_CANCELLING_THREADS)))
    return AttackAnswer(Outcome.LEFT)


def _streams(target: AttackedServer, rng: random.Random) -> AttackAnswer:
    """Open streams on which nothing, or only half of a request, is ever sent."""

    def wait() -> Iterator[object]:
        time.sleep(1.0)
        yield from ()

    calls = [target.stub.ModelStreamInfer(wait(), timeout=10) for _ in range(_OPEN_STREAMS)]
    time.sleep(0.5)
    for call in calls:
        call.cancel()
    return AttackAnswer(Outcome.LEFT)


# --- Connections ------------------------------------------------------------------------------------------------------


def _connection_kinds() -> Iterator[Kind]:
    for protocol in PROTOCOLS:
        name = "gRPC" if protocol == "grpc" else "HTTP"
        yield Kind(f"idle connections, {name}", name, _idle(protocol), frozenset({Outcome.ANSWERED}), apart_s=10)
    yield Kind("body a byte at a time", "HTTP", _slow_body, _UNFINISHED, apart_s=5)
    yield Kind("headers a byte at a time", "HTTP", _slow_headers, _UNFINISHED, apart_s=5)
    yield Kind("half of a request", "HTTP", _half_request, _UNFINISHED, weight=2)
    yield Kind("half of a connection's preface", "gRPC", _half_preface, _UNFINISHED, weight=2)
    yield Kind("HTTP/1 on the port of gRPC", "gRPC", _wrong_protocol, _UNFINISHED, weight=2)
    yield Kind("broken request line", "HTTP", _broken_line, _UNFINISHED, weight=5)


def _idle(protocol: Protocol) -> Send:
    """Return a function that opens idle connections, and checks that a request beside them is still answered."""

    def send(target: AttackedServer, rng: random.Random) -> AttackAnswer:
        with ExitStack() as stack:
            try:
                for _ in range(_IDLE_CONNECTIONS):
                    stack.enter_context(target.connect(protocol))
            except OSError as error:
                return AttackAnswer(Outcome.FAILED, str(error))
            time.sleep(_IDLE_S)
            return target.http("GET", "/v2/health/live")

    return send


_POST = f"POST /v2/models/{IMAGES}/infer HTTP/1.1\r\nHost: x\r\n"


def _slow_body(target: AttackedServer, rng: random.Random) -> AttackAnswer:
    return dripped(target, "http", f"{_POST}Content-Length: 100000\r\n\r\n".encode(), seconds=_DRIP_S)


def _slow_headers(target: AttackedServer, rng: random.Random) -> AttackAnswer:
    return dripped(target, "http", f"{_POST}X-Filler: ".encode(), seconds=_DRIP_S)


def _half_request(target: AttackedServer, rng: random.Random) -> AttackAnswer:
    begin = f"{_POST}Content-Length: 100\r\n\r\n".encode() + b'{"inputs":['
    return half_sent(target, "http", begin[: rng.randrange(1, len(begin))])


def _half_preface(target: AttackedServer, rng: random.Random) -> AttackAnswer:
    begin = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + rng.randbytes(64)
    return half_sent(target, "grpc", begin[: rng.randrange(1, len(begin))])


def _wrong_protocol(target: AttackedServer, rng: random.Random) -> AttackAnswer:
    return half_sent(target, "grpc", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")


def _broken_line(target: AttackedServer, rng: random.Random) -> AttackAnswer:
    lines = (
        b"GET " + b"/" * 100_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\0" * 1000,
        b"GET / HTTP/1.1\r\n" + b"X-A: b\r\n" * 5000 + b"\r\n",
        f"{_POST}Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFF\r\nx".encode(),
        f"{_POST}Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef".encode(),
    )
    return half_sent(target, "http", rng.choice(lines))
