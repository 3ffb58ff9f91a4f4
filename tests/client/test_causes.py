"""What a client makes of the words of a server."""

from __future__ import annotations

import pytest
from tritonclient.utils import InferenceServerException

from ssd_triton.client.causes import from_grpc_error, from_http_error
from ssd_triton.client.errors import ServerNotReadyError, ServerStoppingError, SpoiledBatchError

UNLOADED = "Request for unknown model: 'ssd' has no available versions"
UNKNOWN = "Request for unknown model: 'sdd' is not found"


@pytest.mark.parametrize(("message", "expected"), [(UNLOADED, ServerStoppingError), (UNKNOWN, ServerNotReadyError)])
def test_a_model_that_was_unloaded_is_a_server_that_stops(message: str, expected: type[ServerNotReadyError]) -> None:
    error = from_grpc_error(InferenceServerException(message, "StatusCode.UNAVAILABLE"), "127.0.0.1:8001")
    unknown = from_grpc_error(InferenceServerException(message, "StatusCode.NOT_FOUND"), "127.0.0.1:8001")
    assert type(unknown) is expected
    assert isinstance(error, ServerStoppingError) == (expected is ServerStoppingError)


def test_a_batch_that_another_client_spoiled_is_no_refusal() -> None:
    words = "in ensemble 'ssd', incomplete string data for inference input 'IMAGE', expecting string of length 100"
    found = (
        from_grpc_error(InferenceServerException(words, "StatusCode.INVALID_ARGUMENT"), "127.0.0.1:8001"),
        from_http_error(InferenceServerException(words, "400"), "127.0.0.1:8000"),
    )
    assert [type(error) for error in found] == [SpoiledBatchError, SpoiledBatchError]
