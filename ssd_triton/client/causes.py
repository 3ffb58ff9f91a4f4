"""The cause of an error that tritonclient raises, by its status and, where that does not tell, by Triton's words."""

from __future__ import annotations

import re

from tritonclient.utils import InferenceServerException

from ssd_triton.client.errors import (
    AccessDeniedError,
    BackendProcessDiedError,
    ClientError,
    DeadlineExceededError,
    RequestRefusedError,
    ServerFailedError,
    ServerNotReadyError,
    ServerOverloadedError,
    ServerStoppingError,
    ServerUnreachableError,
    SharedMemoryForgottenError,
    TlsError,
)

_CONNECTION_WORDS = ("connect", "socket", "reset", "transport", "goaway", "unreachable", "broken pipe", "eof")
"""In gRPC's own messages of status UNAVAILABLE; Triton's are about models and queues."""
_TLS_WORDS = ("ssl", "handshake", "certificate", "verification check")
"""In gRPC's messages of status UNAVAILABLE, where trust is missing."""
_NOT_THERE_WORDS = (
    "unknown model",
    "is not ready",
    "not found",
    "is stopping",
    "unavailable",
)
_RESTRICTED = re.compile(r"This \w+ is restricted, expecting header")
"""How Triton begins when a restricted API (HTTP) or protocol (gRPC) is asked for without its key."""
_REFUSAL = re.compile(r"batch element \d+: |got an empty batch|unexpected (shape|datatype|total byte size)")
"""How the preprocessing, which may quote the input, and Triton's own checks of an input begin."""
_OVERLOADED = re.compile(r"exceeds maximum queue size|request timeout expired", re.IGNORECASE)
"""How Triton begins when a queue of a model is full, and when a request has waited there for too long."""
_DIED = re.compile(r"(?:Failed to process .*message: )?Stub process '(?P<instance>[^']+)' is not healthy")
"""How the python backend begins when the process of a model's instance is gone; other releases name it first."""
_STOPPING = "Server is stopping"
"""In what Triton says between being told to end and its end, which is some seconds."""
_UNLOADED = "has no available versions"
"""Of a model that was there: a server that stops unloads its models before it refuses requests as such."""
_FORGOTTEN = re.compile(r"Unable to find (?:system )?shared memory region")
"""How Triton begins when it has not been told of a region."""


def from_grpc_error(error: InferenceServerException, url: str) -> ClientError:
    """The cause of a gRPC error, by its status and, for UNAVAILABLE, by whose message it is."""
    status, message = str(error.status()), _without_ensemble(str(error.message()))
    lower = message.lower()
    if status == "StatusCode.DEADLINE_EXCEEDED":
        return DeadlineExceededError(f"{url}: no answer within the deadline")
    if (cause := _by_triton_words(message, url)) is not None:
        return cause
    if status == "StatusCode.INVALID_ARGUMENT" and "unknown model" not in lower:
        return RequestRefusedError(message)
    if status == "StatusCode.UNAVAILABLE":
        return _from_unavailable(message, url)
    if status == "StatusCode.NOT_FOUND" or "unknown model" in lower:
        return ServerNotReadyError(f"{url}: {message}")
    return ServerFailedError(f"{url}: {message} ({status})")


def _from_unavailable(message: str, url: str) -> ClientError:
    """The cause of gRPC's status UNAVAILABLE, which says everything from a broken connection to a full queue."""
    lower = message.lower()
    if any(word in lower for word in _TLS_WORDS):
        return untrusted(url, message)
    if any(word in lower for word in _CONNECTION_WORDS):
        return unreachable(url, message)
    return ServerNotReadyError(f"{url}: {message}")


def from_stream_error(error: InferenceServerException, url: str) -> ClientError:
    """The cause of an error on a stream: Triton sends the text of a request's error and no status with it."""
    if error.status() is not None:
        return from_grpc_error(error, url)
    message = _without_ensemble(str(error.message()))
    if _REFUSAL.match(message):
        return RequestRefusedError(message)
    if (cause := _by_triton_words(message, url)) is not None:
        return cause
    if any(word in message.lower() for word in _NOT_THERE_WORDS):
        return ServerNotReadyError(f"{url}: {message}")
    return ServerFailedError(f"{url}: {message}")


def from_http_error(error: InferenceServerException, url: str) -> ClientError:
    """The cause of an HTTP error, by its status and text: Triton uses 400 for more than bad requests."""
    status, message = str(error.status()), _without_ensemble(str(error.message()))
    if status == "400" and _REFUSAL.match(message):
        return RequestRefusedError(message)
    if (cause := _by_triton_words(message, url)) is not None:
        return cause
    if status == "503" or any(word in message.lower() for word in _NOT_THERE_WORDS):
        return ServerNotReadyError(f"{url}: {message}")
    if status in ("400", "413"):
        return RequestRefusedError(message)
    if status in ("408", "499", "504"):
        return DeadlineExceededError(f"{url}: {message}")
    return ServerFailedError(f"{url}: {message} (HTTP {status})")


def _by_triton_words(message: str, url: str) -> ClientError | None:
    """The causes that Triton tells apart by words only."""
    if _RESTRICTED.match(message):
        return _denied(url, message)
    if _OVERLOADED.match(message):
        return ServerOverloadedError(
            f"{url}: {message}: more requests come than the server answers; send fewer at once, or add replicas"
        )
    if (died := _DIED.match(message)) is not None:
        return BackendProcessDiedError(
            f"{url}: the process of {died['instance']} has died, and Triton does not start it again: restart the server"
        )
    if _STOPPING in message or _UNLOADED in message:
        return ServerStoppingError(f"{url}: {message}")
    if _FORGOTTEN.match(message):
        return SharedMemoryForgottenError(f"{url}: {message}: the server has been restarted")
    return None


def unreachable(url: str, reason: str) -> ServerUnreachableError:
    """Nothing answers there, for this reason."""
    return ServerUnreachableError(
        f"no Triton server answers at {url} ({' '.join(reason.split())[:120]}): start one with "
        "'python tools/serve.py', or give --url or --serve"
    )


def untrusted(url: str, reason: str) -> TlsError:
    """Client and server do not trust each other, for this reason."""
    return TlsError(
        f"no trust between this client and {url} ({' '.join(reason.split())[:200]}): check --ssl-root-certificates, "
        "--ssl-certificate and --ssl-private-key, that the certificate names this host, and that the port speaks TLS"
    )


def _denied(url: str, reason: str) -> AccessDeniedError:
    return AccessDeniedError(f"{url}: {reason}: server.restricted_apis needs the key of server.admin_key_file")


def _without_ensemble(message: str) -> str:
    """Triton begins with the request's id and the ensemble's name; what a user needs is the reason."""
    return re.sub(r"^(?:\[request id: [^\]]*\] |in ensemble '[^']*', )*", "", message)
