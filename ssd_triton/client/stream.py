"""Many requests over one bidirectional gRPC stream."""

from __future__ import annotations

import collections
import queue
from collections.abc import Callable, Iterable, Iterator, Sequence

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

    An error on a stream carries no request id. Its place shows which request it answers: unless a model is decoupled,
    Triton answers the requests of a stream in order.

    Args:
        url: ``host:port``.
        model: The ensemble for encoded images.
        outputs: Names of the tensors to return.
        images: Images, as :meth:`DetectorClient.detect` takes them.
        in_flight: Requests in flight at once.
        timeout_s: Longest wait between two answers.
        tls: Certificates, for a port with TLS.
        next_request_id: Gives each request its id.

    Yields:
        The outputs of an image, or the error of a refused one.

    Raises:
        ClientError: The subclass for another cause.
    """
    answers: queue.SimpleQueue[_Answer] = queue.SimpleQueue()
    requested = [grpc_client.InferRequestedOutput(name) for name in outputs]
    client = open_channel(parse_endpoint(url, "grpc", tls=tls is not None), tls)
    request_ids: collections.deque[str] = collections.deque()

    def next_answer() -> Outputs | RequestRefusedError:
        try:
            result, error = answers.get(timeout=timeout_s)
        except queue.Empty:
            raise DeadlineExceededError(f"{url}: no answer within {timeout_s:g} s") from None
        request_id = request_ids.popleft()
        if result is not None:
            return {name: result.as_numpy(name) for name in outputs}
        if error is None:
            raise RuntimeError("the stream gave neither a result nor an error")
        cause = from_stream_error(error, url)
        cause.request_id = request_id
        if isinstance(cause, RequestRefusedError):
            return cause
        raise cause from error

    done = False
    try:
        client.start_stream(lambda result, error: answers.put((result, error)))
        waiting = 0
        for given in images:
            try:
                image = np.array([[encoded(given)]], np.object_)
            except RequestRefusedError as refusal:
                for _ in range(waiting):
                    yield next_answer()
                waiting = 0
                yield refusal
                continue
            if waiting == in_flight:
                yield next_answer()
                waiting -= 1
            request_ids.append(next_request_id())
            client.async_stream_infer(
                model, [as_input(grpc_client, "IMAGE", image)], outputs=requested, request_id=request_ids[-1]
            )
            waiting += 1
        for _ in range(waiting):
            yield next_answer()
        done = True
    finally:
        client.stop_stream(cancel_requests=not done)
        client.close()
