"""Maps an error of tritonclient to its cause, by its status and, where that is ambiguous, by Triton's wording."""

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
    SpoiledBatchError,
    TlsError,
)

_CONNECTION_WORDS = ("connect", "socket", "reset", "transport", "goaway", "unreachable", "broken pipe", "eof")
"""Occur in gRPC's own messages of status UNAVAILABLE; Triton's are about models and queues."""
_TLS_WORDS = ("ssl", "handshake", "certificate", "verification check")
"""Occur in gRPC's messages of status UNAVAILABLE when TLS fails."""
_UNRESOLVED = "errors resolving"
"""Occurs in gRPC's message of status UNAVAILABLE when a host name has no address."""
_NOT_READY_WORDS = ("unknown model", "is not ready", "not found", "is stopping", "unavailable")
"""Occur in Triton's messages when a model is not loaded."""
_RESTRICTED = re.compile(r"This \w+ is restricted, expecting header")
"""Begins Triton's answer to a call of a restricted API (HTTP) or protocol (gRPC) without its key."""
_REFUSAL = re.compile(r"batch element \d+: |got an empty batch|unexpected (shape|datatype|total byte size)")
"""Begins the messages of the preprocessing and of Triton's own checks about a bad input. The rest may quote the input,
so only the beginning is matched."""
_OVERLOADED = re.compile(r"exceeds maximum queue size|request timeout expired", re.IGNORECASE)
"""Begins Triton's answer when a model's queue is full, or a request has waited there for too long."""
_DIED = re.compile(r"(?:Failed to process .*message: )?Stub process '(?P<instance>[^']+)' is not healthy")
"""Begins the python backend's answer when the process of an instance has died; some releases put a name in front."""
_STOPPING = "Server is stopping"
"""Occurs in Triton's answers during the seconds of its shutdown."""
_UNLOADED = "has no available versions"
"""Occurs when a model was loaded before: a server that shuts down unloads its models before it reports the shutdown."""
_PROTOCOLS = {"grpc": "gRPC", "http": "HTTP"}
_FORGOTTEN = re.compile(r"Unable to find (?:system )?shared memory region")
"""Begins Triton's answer when a region is not registered."""

_SPOILED = "incomplete string data for inference input"
"""Begins the python backend's answer to a whole batch in which one request has fewer bytes than it declares.

This client never sends such a request: the culprit is another client."""


def from_grpc_error(error: InferenceServerException, url: str) -> ClientError:
    """Return the cause of a gRPC error, by its status and, for UNAVAILABLE, by its author: gRPC or Triton."""
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
    """Return the cause of gRPC's status UNAVAILABLE: anything from a lost connection to a missing model."""
    lower = message.lower()
    if any(word in lower for word in _TLS_WORDS):
        return untrusted(url, message)
    if _UNRESOLVED in lower:
        return unknown_host(url, message.rpartition(": ")[2].strip("[]"))
    if any(word in lower for word in _CONNECTION_WORDS):
        return unreachable(url, message)
    return ServerNotReadyError(f"{url}: {message}")


def from_stream_error(error: InferenceServerException, url: str) -> ClientError:
    """Return the cause of an error on a stream, where Triton sends only a text, without a status."""
    if error.status() is not None:
        return from_grpc_error(error, url)
    message = _without_ensemble(str(error.message()))
    if _REFUSAL.match(message):
        return RequestRefusedError(message)
    if (cause := _by_triton_words(message, url)) is not None:
        return cause
    if any(word in message.lower() for word in _NOT_READY_WORDS):
        return ServerNotReadyError(f"{url}: {message}")
    return ServerFailedError(f"{url}: {message}")


def from_http_error(error: InferenceServerException, url: str) -> ClientError:
    """Return the cause of an HTTP error, by status and text: Triton uses 400 for more than bad requests."""
    status, message = str(error.status()), _without_ensemble(str(error.message()))
    if status == "400" and _REFUSAL.match(message):
        return RequestRefusedError(message)
    if (cause := _by_triton_words(message, url)) is not None:
        return cause
    if status == "503" or any(word in message.lower() for word in _NOT_READY_WORDS):
        return ServerNotReadyError(f"{url}: {message}")
    if status in ("400", "413"):
        return RequestRefusedError(message)
    if status in ("408", "499", "504"):
        return DeadlineExceededError(f"{url}: {message}")
    return ServerFailedError(f"{url}: {message} (HTTP {status})")


def _by_triton_words(message: str, url: str) -> ClientError | None:
    """Return a cause that only Triton's wording reveals; None if the wording matches none."""
    if _RESTRICTED.match(message):
        return _denied(url, message)
    if _OVERLOADED.match(message):
        return ServerOverloadedError(
            f"{url}: {message}: more requests arrive than the server can answer; send fewer at once, or add replicas"
        )
    if (died := _DIED.match(message)) is not None:
        return BackendProcessDiedError(
            f"{url}: the process of {died['instance']} has died, and Triton does not start it again; restart the server"
        )
    if _STOPPING in message or _UNLOADED in message:
        return ServerStoppingError(f"{url}: {message}")
    if _FORGOTTEN.match(message):
        return SharedMemoryForgottenError(f"{url}: {message}: the server has been restarted")
    spoiled = SpoiledBatchError(f"{url}: {message}: another client's broken request was in the same batch")
    return spoiled if message.startswith(_SPOILED) else None


def unreachable(url: str, reason: str) -> ServerUnreachableError:
    """Return the error for an address where nothing answers; ``reason`` is the library's message."""
    return ServerUnreachableError(
        f"no Triton server answers at {url} ({' '.join(reason.split())[:120]}): start one with "
        "'ssd-triton serve', or give --url or --serve"
    )


def unknown_host(url: str, reason: str) -> ServerUnreachableError:
    """Return the error for a host name without an address; a later look-up may find one."""
    return ServerUnreachableError(f"{url}: unknown host ({reason}); correct the address, or check the network's DNS")


def wrong_port(url: str, found: str, wanted: str) -> ServerUnreachableError:
    """Return the error for a port that speaks the other protocol."""
    ports = {"grpc": "8001", "http": "8000"}
    return ServerUnreachableError(
        f"{url}: got a port of {_PROTOCOLS[found]}, expected one of {_PROTOCOLS[wanted]} (by default "
        f"{ports[wanted]}); give that port, or --protocol {found}"
    )


def untrusted(url: str, reason: str) -> TlsError:
    """Return the error for a client and a server that do not trust each other; ``reason`` is the library's message."""
    return TlsError(
        f"no trust between this client and {url} ({' '.join(reason.split())[:200]}): check --ssl-root-certificates, "
        "--ssl-certificate and --ssl-private-key, that the certificate names this host, and that the port speaks TLS"
    )


def _denied(url: str, reason: str) -> AccessDeniedError:
    return AccessDeniedError(f"{url}: {reason}: server.restricted_apis needs the key of server.admin_key_file")


def _without_ensemble(message: str) -> str:
    """Cut off the request id and the name of the ensemble, which Triton puts in front."""
    return re.sub(r"^(?:\[request id: [^\]]*\] |in ensemble '[^']*', )*", "", message)
