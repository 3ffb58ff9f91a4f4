"""The client: one image, many images in flight, a stream, or frames through shared memory."""

from __future__ import annotations

import itertools
import logging
import random
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Literal, TypeVar

import numpy as np

from ssd_triton.client.endpoint import is_loopback
from ssd_triton.client.errors import (
    BackendProcessDiedError,
    ClientError,
    DeadlineExceededError,
    RequestRefusedError,
    ServerNotReadyError,
    ServerOverloadedError,
    ServerStoppingError,
    ServerUnreachableError,
    SharedMemoryForgottenError,
    SharedMemoryUnavailableError,
)
from ssd_triton.client.shared_memory import FramePool
from ssd_triton.client.stream import stream_detections
from ssd_triton.client.tls import Tls
from ssd_triton.client.transport import Outputs, make_transport
from ssd_triton.common.arrays import AnyArray
from ssd_triton.common.detections import Detections
from ssd_triton.common.in_flight import submit_ahead
from ssd_triton.common.model_names import PREPROCESS

Result = TypeVar("Result")
OUTPUTS = ("num_detections", "detection_boxes", "detection_scores", "detection_classes")
_RETRIES = 3
_RETRIES_WHILE_STOPPING = 10
"""Some six seconds: with replicas, every other try may find the one that stops, for as long as it takes to."""
_FIRST_RETRY_AFTER_S = 0.1
_LONGEST_RETRY_AFTER_S = 1.0
_MAY_PASS = (ServerUnreachableError, ServerNotReadyError, ServerOverloadedError, SharedMemoryForgottenError)
"""What may be otherwise a moment later."""
_MAY_PASS_WITH_A_RESTART = (*_MAY_PASS, DeadlineExceededError, BackendProcessDiedError)
_READY_POLL_S = 0.1


class DetectorClient:
    """A connection to the ensembles ``ssd`` (encoded images) and ``ssd_frames`` (raw frames).

    Every call has a deadline. A request is tried again only after :class:`ServerUnreachableError`,
    :class:`ServerNotReadyError` and :class:`ServerOverloadedError`, at most three times (ten while a server
    stops, since a replica may answer) and within its deadline; with ``retry_s`` for that long and after
    :class:`DeadlineExceededError` and :class:`BackendProcessDiedError` too, so that a server may go away and come back.
    The pauses in between double, up to a second, and are shortened at random, so that clients that were refused
    together do not come back together. Inference changes nothing on the server, so that a repeated request is
    harmless. Every request has an id of its own, by which the server's log calls it, and which its error carries. All
    methods may be called from several threads.

    Example::

        with DetectorClient("127.0.0.1:8001") as client:
            client.wait_ready(timeout_s=60)
            detections = client.detect(Path("street.jpg").read_bytes())

    Attributes:
        in_flight: Requests under way at once.
        retry_s: How long a request is tried again in all while the server is away, if it was given.
        retries: How often a request was tried again so far.
    """

    def __init__(
        self,
        url: str,
        *,
        protocol: Literal["grpc", "http"] = "grpc",
        timeout_s: float = 30.0,
        in_flight: int = 4,
        model: str = "ssd",
        frames_model: str = "ssd_frames",
        use_shared_memory: bool | None = None,
        retry_s: float | None = None,
        tls: Tls | None = None,
    ) -> None:
        """Prepare a client; nothing is sent yet.

        Args:
            url: ``host:port`` without a scheme. gRPC also takes several replicas, which get requests in turn:
                ``ipv4:host:port,host:port``, or a name with several addresses as ``dns:///name:port``.
            protocol: What the port speaks.
            timeout_s: Deadline of one request, its retries included; with ``retry_s``, of each try.
            in_flight: Requests under way at once, for :meth:`submit`, :meth:`map` and :meth:`stream`.
            model: The ensemble for encoded images.
            frames_model: The ensemble for raw frames.
            use_shared_memory: Whether frames go through system shared memory; None tries it when the host is this
                machine, and sends frames over the connection when the server cannot map it.
            retry_s: How long a request is tried again in all while the server is away; None: see the class.
            tls: Certificates, for a port that speaks TLS; None speaks plain text.

        Raises:
            TlsError: A file of ``tls`` cannot be used.
        """
        self._url = url
        self._timeout_s = timeout_s
        self.retry_s = retry_s
        self.retries = 0
        self._counting = threading.Lock()
        self._closing = threading.Event()
        self.in_flight = in_flight
        self._model = model
        self._frames_model = frames_model
        self._tls = tls
        self._transport = make_transport(protocol, url, timeout_s, tls=tls)
        self._request_ids = map(f"{uuid.uuid4().hex[:12]}-{{}}".format, itertools.count(1))
        self._protocol = protocol
        self._executor = ThreadPoolExecutor(in_flight, thread_name_prefix="detector-client")
        self._may_submit = threading.BoundedSemaphore(in_flight)
        self._shared_memory_required = use_shared_memory is True
        wanted = is_loopback(url.rsplit(":", 1)[0]) if use_shared_memory is None else use_shared_memory
        # detect_frame may run on the caller's thread besides the executor's.
        self._frame_pool = FramePool(self._transport, in_flight + 1) if wanted else None

    def __enter__(self) -> DetectorClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Wait for requests under way, which are not tried again, free the shared memory, close the connections."""
        self._closing.set()
        self._executor.shutdown(wait=True, cancel_futures=True)
        if self._frame_pool is not None:
            self._frame_pool.close()
        self._transport.close()

    def is_ready(self) -> bool:
        """Whether the server and both ensembles are ready; raises ServerUnreachableError when nothing answers."""
        return self._transport.is_ready(self._model) and self._transport.is_ready(self._frames_model)

    def wait_ready(self, timeout_s: float) -> None:
        """Wait until the server is ready.

        Raises:
            ServerUnreachableError: Nothing answered until the deadline.
            ServerNotReadyError: The server answered, but was not ready by then.
        """
        deadline_s = time.monotonic() + timeout_s
        while True:
            try:
                if self.is_ready():
                    return
                problem: ClientError = ServerNotReadyError(
                    f"{self._url}: '{self._model}' or '{self._frames_model}' is not ready after {timeout_s:g} s: see "
                    "the server's log"
                )
            except ServerUnreachableError as error:
                problem = error
            if time.monotonic() + _READY_POLL_S > deadline_s:
                raise problem
            time.sleep(_READY_POLL_S)

    def model_config(self, model: str | None = None) -> dict[str, Any]:
        """The configuration that the server has loaded for a model, as JSON."""
        return self._transport.model_config(model or self._model)

    def server_version(self) -> str:
        """Of Triton, such as ``2.51.0``."""
        return self._transport.server_version()

    def detect(self, encoded: bytes) -> Detections:
        """Detect objects in one encoded image (JPEG, PNG, ...).

        Raises:
            ClientError: One of its subclasses, by cause.
        """
        return self.detect_batch([encoded])[0]

    def detect_batch(self, encoded: Sequence[bytes]) -> list[Detections]:
        """Detect objects in several encoded images with one request; one bad image fails the whole request."""
        images = np.empty((len(encoded), 1), np.object_)
        images[:, 0] = encoded
        return _to_detections(self._infer(self._model, "IMAGE", images))

    def detect_frame(self, frame_rgb: AnyArray) -> Detections:
        """Detect objects in one frame, UINT8 [H, W, 3] RGB; boxes are in its pixels.

        Raises:
            ClientError: One of its subclasses, by cause; a frame of another rank or dtype, or an empty one, is
                refused before it is sent.
        """
        if frame_rgb.dtype != np.uint8 or frame_rgb.ndim != 3 or frame_rgb.shape[2] != 3 or not frame_rgb.size:
            raise RequestRefusedError(
                f"got a frame of {frame_rgb.dtype} {list(frame_rgb.shape)}, expected uint8 [height, width, 3] RGB"
            )
        frames = np.ascontiguousarray(frame_rgb)[np.newaxis]
        if self._frame_pool is not None:
            try:
                return _to_detections(self._infer_shared(self._frame_pool, frames))[0]
            except SharedMemoryUnavailableError as error:
                if self._shared_memory_required:
                    raise
                logging.info("frames are sent over the connection: %s", error)
                self._frame_pool = None
        return _to_detections(self._infer(self._frames_model, "FRAME", frames))[0]

    def submit(self, encoded: bytes) -> Future[Detections]:
        """Start :meth:`detect` and return at once; waits only while ``in_flight`` requests are under way."""
        return self._submit(lambda: self.detect(encoded))

    def submit_batch(self, encoded: Sequence[bytes]) -> Future[list[Detections]]:
        """Start :meth:`detect_batch`, likewise."""
        return self._submit(lambda: self.detect_batch(encoded))

    def submit_frame(self, frame_rgb: AnyArray) -> Future[Detections]:
        """Start :meth:`detect_frame`, likewise."""
        return self._submit(lambda: self.detect_frame(frame_rgb))

    def submit_preprocess(self, encoded: bytes) -> Future[AnyArray]:
        """Have the server decode and resize one encoded image, and no more: UINT8 [300, 300, 3] RGB."""

        def preprocess() -> AnyArray:
            image = np.array([[encoded]], np.object_)
            found: AnyArray = self._infer(PREPROCESS, "IMAGE", image, ("image",))["image"][0]
            return found

        return self._submit(preprocess)

    def map(self, images: Iterable[bytes]) -> Iterator[Detections | RequestRefusedError]:
        """Detect objects in many encoded images, ``in_flight`` at once; results come in the order of the images.

        A refused image yields its error in its place; every other error is raised.
        """
        for _, future in submit_ahead(images, self.submit, self.in_flight):
            yield _result_or_refusal(future)

    def stream(self, images: Iterable[bytes]) -> Iterator[Detections | RequestRefusedError]:
        """As :meth:`map`, over one bidirectional gRPC stream; ``timeout_s`` applies between two answers.

        Raises:
            ValueError: The client speaks HTTP, which has no streams.
        """
        if self._protocol != "grpc":
            raise ValueError("streaming needs protocol='grpc'")
        for answer in stream_detections(
            self._url,
            self._model,
            OUTPUTS,
            images,
            in_flight=self.in_flight,
            timeout_s=self._timeout_s,
            tls=self._tls,
            next_request_id=self._next_request_id,
        ):
            yield answer if isinstance(answer, RequestRefusedError) else _to_detections(answer)[0]

    def _submit(self, call: Callable[[], Result]) -> Future[Result]:
        self._may_submit.acquire()
        try:
            future = self._executor.submit(call)
        except BaseException:
            self._may_submit.release()
            raise
        future.add_done_callback(lambda _: self._may_submit.release())
        return future

    def _infer(self, model: str, input_name: str, value: AnyArray, outputs: Sequence[str] = OUTPUTS) -> Outputs:
        return self._retried(
            lambda timeout_s, request_id: self._transport.infer(
                model, input_name, value, outputs, timeout_s, request_id=request_id
            )
        )

    def _infer_shared(self, pool: FramePool, frames: AnyArray) -> Outputs:
        """Place the frames anew for each try: a server that was restarted must be told of the region again."""

        def infer(timeout_s: float, request_id: str) -> Outputs:
            with pool.place(frames) as shared:
                return self._transport.infer(
                    self._frames_model, "FRAME", shared, OUTPUTS, timeout_s, request_id=request_id
                )

        return self._retried(infer)

    def _retried(self, infer: Callable[[float, str], Outputs]) -> Outputs:
        """Call with the seconds that a try may take and a request id, until it succeeds, fails for good or is late."""
        patient = self.retry_s is not None
        deadline_s = time.monotonic() + (self.retry_s or self._timeout_s)
        tried_again = _MAY_PASS_WITH_A_RESTART if patient else _MAY_PASS
        wait_s = _FIRST_RETRY_AFTER_S
        request_id = self._next_request_id()
        for attempt in itertools.count():
            timeout_s = self._timeout_s if patient else min(self._timeout_s, deadline_s - time.monotonic())
            try:
                return infer(timeout_s, request_id)
            except ClientError as error:
                error.request_id = request_id
                retries = _RETRIES_WHILE_STOPPING if isinstance(error, ServerStoppingError) else _RETRIES
                last = not isinstance(error, tried_again) or (attempt >= retries and not patient)
                left_s = deadline_s - time.monotonic()
                pause_s = wait_s * random.uniform(0.5, 1.0)  # noqa: S311 - spreads clients, hides nothing
                if patient:
                    pause_s = min(pause_s, left_s)  # so that the last try comes at the end, not before it
                if last or self._closing.is_set() or not 0 < pause_s <= left_s:
                    raise
            with self._counting:
                self.retries += 1
            self._closing.wait(pause_s)
            wait_s = min(2 * wait_s, _LONGEST_RETRY_AFTER_S)
        raise AssertionError("the loop above returns or raises")

    def _next_request_id(self) -> str:
        with self._counting:
            return next(self._request_ids)


def _to_detections(outputs: Outputs) -> list[Detections]:
    """Split a response's fixed-size outputs into one :class:`Detections` an image."""
    return [
        Detections.from_padded(int(count[0]), boxes, scores, classes)
        for count, boxes, scores, classes in zip(*(outputs[name] for name in OUTPUTS), strict=True)
    ]


def _result_or_refusal(future: Future[Detections]) -> Detections | RequestRefusedError:
    try:
        return future.result()
    except RequestRefusedError as error:
        return error
