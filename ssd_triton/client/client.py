"""The client: sends one image, many in flight, a stream, or raw frames through shared memory."""

from __future__ import annotations

import itertools
import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Literal, TypeVar

import numpy as np

from ssd_triton.client.endpoint import parse_endpoint
from ssd_triton.client.errors import (
    ClientError,
    DeadlineExceededError,
    FramesNotServedError,
    RequestRefusedError,
    ServerFailedError,
    ServerNotReadyError,
    ServerUnreachableError,
    SharedMemoryUnavailableError,
    TlsError,
)
from ssd_triton.client.inputs import ImageInput, checked_frame, encoded
from ssd_triton.client.retries import Retries
from ssd_triton.client.shared_memory import FramePool
from ssd_triton.client.tls import Tls
from ssd_triton.client.transport import Outputs, SharedInput, make_transport
from ssd_triton.common.arrays import AnyArray
from ssd_triton.common.detections import Detections
from ssd_triton.common.in_flight import submit_ahead
from ssd_triton.common.model_names import PREPROCESS

Result = TypeVar("Result")
OUTPUTS = ("num_detections", "detection_boxes", "detection_scores", "detection_classes")
_READY_POLL_S = 0.1


class DetectorClient:
    """A connection to the ensembles ``ssd`` (encoded images) and ``ssd_frames`` (raw frames).

    Every call has a deadline. Inference changes nothing on the server, so a retry is safe. A request is retried after
    errors that may pass, such as :class:`ServerUnreachableError`, :class:`ServerNotReadyError` and
    :class:`ServerOverloadedError`: at most three times (ten while a server is stopping, since a replica may answer)
    and within the request's deadline. With ``retry_s``, it is retried for that long, also after
    :class:`DeadlineExceededError` and :class:`BackendProcessDiedError`, and so survives a restart of the server.
    Pauses between tries double up to a second, minus a random part, so that clients that were refused together do not
    return together.

    Each request has an id, which appears in the server's log and in the request's error. All methods may be called
    from several threads.

    Example::

        with DetectorClient("127.0.0.1:8001") as client:
            client.wait_ready(timeout_s=60)
            detections = client.detect("street.jpg")

    Attributes:
        in_flight: Requests in flight at once.
        retry_s: How long a request is retried in total while the server is away; None if it was not given.
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
        labels: Sequence[str] | None = None,
    ) -> None:
        """Prepare a client; nothing is sent yet.

        Args:
            url: ``host:port``, optionally after ``grpc://`` or ``http://``; an IPv6 address needs brackets. gRPC also
                takes several replicas, which get requests in turn: ``ipv4:host:port,host:port``, or a name with several
                addresses as ``dns:///name:port``.
            protocol: The port's protocol.
            timeout_s: Deadline of one request, its retries included; with ``retry_s``, of each try.
            in_flight: Requests in flight at once, for :meth:`submit`, :meth:`map` and :meth:`stream`.
            model: The ensemble for encoded images.
            frames_model: The ensemble for raw frames.
            use_shared_memory: Whether frames go through system shared memory; None tries it when the host is this
                machine, and sends frames over the connection when the server cannot map it.
            retry_s: How long a request is retried in total while the server is away; None retries as the class says.
            tls: Certificates for a port with TLS; None for a port without.
            labels: Class names by id, the background first, for the detections; see
                :func:`ssd_triton.common.labels.load_labels`.

        Raises:
            ConfigError: ``url`` is no address of that protocol.
            TlsError: A file of ``tls`` cannot be used.
        """
        endpoint = parse_endpoint(url, protocol, tls=tls is not None)
        self._url = endpoint.target
        self._protocol = protocol
        self._timeout_s = timeout_s
        self._tls = tls
        self._labels = None if labels is None else tuple(labels)
        self.in_flight = in_flight
        self.retry_s = retry_s
        self._retries = Retries(timeout_s, retry_s)
        self._model = model
        self._frames_model = frames_model
        self._transport = make_transport(protocol, self._url, timeout_s, tls=tls)
        self._request_ids = map(f"{uuid.uuid4().hex[:12]}-{{}}".format, itertools.count(1))
        self._numbering = threading.Lock()
        self._executor = ThreadPoolExecutor(in_flight, thread_name_prefix="detector-client")
        self._may_submit = threading.BoundedSemaphore(in_flight)
        self._shared_memory_required = use_shared_memory is True
        wanted = endpoint.is_loopback if use_shared_memory is None else use_shared_memory
        self._frames_as_files = False
        # One region more than requests in flight: detect_frame may also run on the caller's own thread.
        self._frame_pool = FramePool(self._transport, in_flight + 1) if wanted else None

    def __enter__(self) -> DetectorClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Wait for the requests in flight without further retries, free the shared memory, close the connections."""
        self._retries.stop()
        self._executor.shutdown(wait=True, cancel_futures=True)
        if self._frame_pool is not None:
            self._frame_pool.close()
        self._transport.close()

    @property
    def retries(self) -> int:
        """Number of retries so far, over all requests."""
        return self._retries.count

    def is_ready(self) -> bool:
        """Whether the server and its ensemble for encoded images are ready.

        Raises:
            ServerUnreachableError: Nothing answers.
        """
        return self._transport.is_ready(self._model)

    def wait_ready(self, timeout_s: float) -> None:
        """Wait until the server is ready.

        Raises:
            ServerUnreachableError: Nothing answered until the deadline.
            ServerNotReadyError: The server answered, but was not ready by then.
            DeadlineExceededError: The server accepted connections, but did not answer.
        """
        deadline_s = time.monotonic() + timeout_s
        while True:
            try:
                if self.is_ready():
                    return
                problem: ClientError = ServerNotReadyError(
                    f"{self._url}: '{self._model}' is not ready after {timeout_s:g} s: see the server's log"
                )
            except (ServerUnreachableError, DeadlineExceededError) as error:
                problem = error
            if time.monotonic() + _READY_POLL_S > deadline_s:
                raise problem
            time.sleep(_READY_POLL_S)

    def model_config(self, model: str | None = None) -> dict[str, Any]:
        """Return the configuration that the server has loaded for a model, as JSON values."""
        return self._transport.model_config(model or self._model)

    def server_version(self) -> str:
        """The release of Triton, such as ``2.51.0``."""
        return self._transport.server_version()

    def detect(self, image: ImageInput, *, request_id: str | None = None) -> Detections:
        """Detect objects in one image: a path, the bytes of an image file, an array or an image of Pillow.

        Boxes are in the stored pixels: EXIF is not applied.

        Args:
            image: The image.
            request_id: Name of the request in the server's log; None generates one.

        Raises:
            RequestRefusedError: The image is of another type, or the server refuses it.
            ClientError: Any other failure, by the subclass for its cause.
        """
        return self.detect_batch([image], request_id=request_id)[0]

    def detect_batch(self, images: Sequence[ImageInput], *, request_id: str | None = None) -> list[Detections]:
        """Detect objects in several images with one request; one bad image fails the whole request.

        Args:
            images: The images.
            request_id: As for :meth:`detect`.

        Raises:
            ClientError: Any failure, by the subclass for its cause.
        """
        files = np.empty((len(images), 1), np.object_)
        files[:, 0] = [encoded(image) for image in images]
        return self._to_detections(self._infer(self._model, "IMAGE", files, request_id=request_id))

    def detect_frame(self, frame_rgb: AnyArray) -> Detections:
        """Detect objects in one frame, UINT8 [H, W, 3] RGB; boxes are in its pixels.

        If the server takes no raw frames (``serve --expose``), the frame is sent as a file with the same pixels.

        Raises:
            RequestRefusedError: The frame has another type, rank or dtype, or is empty; it was not sent.
            ClientError: Any other failure, by the subclass for its cause.
        """
        frames = np.ascontiguousarray(checked_frame(frame_rgb))[np.newaxis]
        try:
            if self._frame_pool is not None:
                try:
                    return self._to_detections(self._infer_shared(self._frame_pool, frames))[0]
                except SharedMemoryUnavailableError as error:
                    if self._shared_memory_required:
                        raise
                    logging.info("sending frames over the connection: %s", error)
                    self._frame_pool = None
            if not self._frames_as_files:
                return self._to_detections(self._infer(self._frames_model, "FRAME", frames))[0]
        except FramesNotServedError as error:
            logging.info("sending frames as files: %s", error)
            self._frames_as_files, self._frame_pool = True, None
        return self.detect(frame_rgb)

    def submit(self, image: ImageInput) -> Future[Detections]:
        """Start :meth:`detect` and return a future; blocks only while ``in_flight`` requests are in flight."""
        return self._submit(lambda: self.detect(image))

    def submit_batch(self, images: Sequence[ImageInput]) -> Future[list[Detections]]:
        """Start :meth:`detect_batch` and return a future, as :meth:`submit` does."""
        return self._submit(lambda: self.detect_batch(images))

    def submit_frame(self, frame_rgb: AnyArray) -> Future[Detections]:
        """Start :meth:`detect_frame` and return a future, as :meth:`submit` does."""
        return self._submit(lambda: self.detect_frame(frame_rgb))

    def submit_preprocess(self, file: bytes) -> Future[AnyArray]:
        """Start the preprocessing alone; the future gives the decoded, resized image, UINT8 [300, 300, 3] RGB."""

        def preprocess() -> AnyArray:
            image = np.array([[file]], np.object_)
            found: AnyArray = self._infer(PREPROCESS, "IMAGE", image, ("image",))["image"][0]
            return found

        return self._submit(preprocess)

    def map(self, images: Iterable[ImageInput]) -> Iterator[Detections | RequestRefusedError]:
        """Detect objects in many images, ``in_flight`` at once; results come in the order of the images.

        A refused image yields its error in its place; every other error is raised.
        """
        for _, future in submit_ahead(images, self.submit, self.in_flight):
            yield _result_or_refusal(future)

    def stream(self, images: Iterable[ImageInput]) -> Iterator[Detections | RequestRefusedError]:
        """Do as :meth:`map` over one bidirectional gRPC stream; ``timeout_s`` limits the wait between two answers.

        Raises:
            ValueError: The client uses HTTP, which has no streams.
        """
        if self._protocol != "grpc":
            raise ValueError("got a stream over protocol='http', expected protocol='grpc'")
        from ssd_triton.client.stream import stream_detections

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
            yield answer if isinstance(answer, RequestRefusedError) else self._to_detections(answer)[0]

    def _submit(self, call: Callable[[], Result]) -> Future[Result]:
        self._may_submit.acquire()
        try:
            future = self._executor.submit(call)
        except BaseException:
            self._may_submit.release()
            raise
        future.add_done_callback(lambda _: self._may_submit.release())
        return future

    def _infer(
        self,
        model: str,
        input_name: str,
        value: AnyArray,
        outputs: Sequence[str] = OUTPUTS,
        *,
        request_id: str | None = None,
    ) -> Outputs:
        return self._send(
            lambda timeout_s, request_id: self._infer_once(
                model, input_name, value, outputs, timeout_s, request_id=request_id
            ),
            request_id,
        )

    def _infer_once(
        self,
        model: str,
        input_name: str,
        value: AnyArray | SharedInput,
        outputs: Sequence[str],
        timeout_s: float,
        *,
        request_id: str,
    ) -> Outputs:
        try:
            return self._transport.infer(model, input_name, value, outputs, timeout_s, request_id=request_id)
        except (ServerNotReadyError, ServerFailedError, TlsError) as error:
            # Frames count as not served only while the other ensemble is ready: a server that starts or stops has
            # neither, and a retry will show. The error types vary, since a proxy that refuses a model may close the
            # call or the connection before its reason is read.
            if model != self._frames_model or not self._transport.is_ready(self._model):
                raise
            if self._transport.is_ready(model):
                raise
            raise FramesNotServedError(str(error)) from error

    def _infer_shared(self, pool: FramePool, frames: AnyArray) -> Outputs:
        """Run a request with frames in shared memory.

        Each try places the frames again, since a restarted server needs the region registered again.
        """

        def infer(timeout_s: float, request_id: str) -> Outputs:
            with pool.place(frames) as shared:
                return self._infer_once(self._frames_model, "FRAME", shared, OUTPUTS, timeout_s, request_id=request_id)

        return self._send(infer)

    def _send(self, infer: Callable[[float, str], Outputs], request_id: str | None = None) -> Outputs:
        """Call ``infer`` with the seconds that a try may take and a request id, and retry it."""
        request_id = request_id or self._next_request_id()
        try:
            return self._retries.run(lambda timeout_s: infer(timeout_s, request_id))
        except ClientError as error:
            error.request_id = request_id
            raise

    def _to_detections(self, outputs: Outputs) -> list[Detections]:
        """Split a response's fixed-size outputs into one :class:`Detections` for each image."""
        return [
            Detections.from_padded(int(count[0]), boxes, scores, classes, self._labels)
            for count, boxes, scores, classes in zip(*(outputs[name] for name in OUTPUTS), strict=True)
        ]

    def _next_request_id(self) -> str:
        with self._numbering:
            return next(self._request_ids)


def _result_or_refusal(future: Future[Detections]) -> Detections | RequestRefusedError:
    try:
        return future.result()
    except RequestRefusedError as error:
        return error
