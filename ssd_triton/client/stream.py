"""Many requests over one bidirectional gRPC stream."""

from __future__ import annotations

import collections
import queue
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import TracebackType

import numpy as np
import tritonclient.grpc as grpc_client
from tritonclient.utils import InferenceServerException

from ssd_triton.client.causes import from_stream_error
from ssd_triton.client.endpoint import parse_endpoint
from ssd_triton.client.errors import DeadlineExceededError, RequestRefusedError
from ssd_triton.client.grpc_transport import open_channel
from ssd_triton.client.inputs import ImageInput, encoded
from ssd_triton.client.tls import Tls
from ssd_triton.client.transport import Outputs, as_input
from ssd_triton.common.arrays import AnyArray

_Answer = tuple[grpc_client.InferResult | None, InferenceServerException | None]


def stream_detections(
    url: str,
    model: str,
    outputs: Sequence[str],
    images: Iterable[ImageInput],
    *,
    in_flight: int,
    timeout_s: float,
    tls: Tls | None,
    next_request_id: Callable[[], str],
) -> Iterator[Outputs | RequestRefusedError]:
    """Send images over a new stream, and yield the answers in the same order.

    An error on a stream carries no request id. Its position shows which request it answers: unless a model is
    decoupled, Triton answers the requests of a stream in order.

    Args:
        url: ``host:port``.
        model: The ensemble for encoded images.
        outputs: Names of the tensors to return.
        images: Images of any type that :meth:`DetectorClient.detect` takes.
        in_flight: Requests in flight at once.
        timeout_s: Longest wait between two answers.
        tls: Certificates for a port with TLS; None for a port without.
        next_request_id: Returns the id for the next request.

    Yields:
        The outputs for an image, or the error if it was refused.

    Raises:
        ClientError: Any other failure, by the subclass for its cause.
    """
    with _Stream(url, model, outputs, timeout_s, tls) as stream:
        for given in images:
            try:
                image = np.array([[encoded(given)]], np.object_)
            except RequestRefusedError as refusal:
                yield from stream.answers_until(0)
                yield refusal
                continue
            yield from stream.answers_until(in_flight - 1)
            stream.send(image, next_request_id())
        yield from stream.answers_until(0)


class _Stream:
    """A stream with its unanswered requests, which are cancelled when the block ends with an error."""

    def __init__(self, url: str, model: str, outputs: Sequence[str], timeout_s: float, tls: Tls | None) -> None:
        self._url, self._model, self._timeout_s = url, model, timeout_s
        self._requested = [grpc_client.InferRequestedOutput(name) for name in outputs]
        self._client = open_channel(parse_endpoint(url, "grpc", tls=tls is not None), tls)
        self._answers: queue.SimpleQueue[_Answer] = queue.SimpleQueue()
        self._request_ids: collections.deque[str] = collections.deque()

    def __enter__(self) -> _Stream:
        self._client.start_stream(lambda result, error: self._answers.put((result, error)))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.stop_stream(cancel_requests=kind is not None)
        self._client.close()

    def send(self, image: AnyArray, request_id: str) -> None:
        """Send a request for one image."""
        self._request_ids.append(request_id)
        inputs = [as_input(grpc_client, "IMAGE", image)]
        self._client.async_stream_infer(self._model, inputs, outputs=self._requested, request_id=request_id)

    def answers_until(self, left: int) -> Iterator[Outputs | RequestRefusedError]:
        """Yield answers until no more than ``left`` requests are in flight."""
        while len(self._request_ids) > left:
            yield self._next_answer()

    def _next_answer(self) -> Outputs | RequestRefusedError:
        try:
            result, error = self._answers.get(timeout=self._timeout_s)
        except queue.Empty:
            raise DeadlineExceededError(f"{self._url}: no answer within {self._timeout_s:g} s") from None
        request_id = self._request_ids.popleft()
        if result is not None:
            return {output.name(): result.as_numpy(output.name()) for output in self._requested}
        if error is None:
            raise RuntimeError("the stream gave neither a result nor an error")
        cause = from_stream_error(error, self._url)
        cause.request_id = request_id
        if isinstance(cause, RequestRefusedError):
            return cause
        raise cause from error
