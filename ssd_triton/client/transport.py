"""The two protocols behind one interface: tritonclient's calls, and its many errors as our few."""

from __future__ import annotations

import re
import ssl
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeVar

import gevent
import numpy as np
import tritonclient.grpc as grpc_client
import tritonclient.http as http_client
from geventhttpclient.response import HTTPConnectionClosed, HTTPProtocolViolationError
from tritonclient.utils import InferenceServerException

from ssd_triton.access import ADMIN_HEADER, GRPC_ADMIN_HEADER
from ssd_triton.arrays import AnyArray
from ssd_triton.client.errors import (
    AccessDeniedError,
    BackendProcessDiedError,
    ClientError,
    DeadlineExceededError,
    RequestRefusedError,
    ServerFailedError,
    ServerNotReadyError,
    ServerOverloadedError,
    ServerUnreachableError,
    SharedMemoryForgottenError,
    TlsError,
)
from ssd_triton.client.tls import Tls

Result = TypeVar("Result")
Outputs = dict[str, AnyArray]
SharedInput = tuple[str, int, list[int], str]
"""Region, bytes, shape and Triton's name of the dtype."""

CHANNEL_ARGS = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # gRPC would wait a second and more before it connects again, and fail every retry until then.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # Where a name or a list stands for several replicas, gRPC would take the first that answers for all requests.
    ("grpc.lb_policy_name", "round_robin"),
)
"""Options of a gRPC channel: messages of any size, as tritonclient sets by itself, quick reconnection, and
replicas in turn."""

_SHORTEST_S = 1e-3
"""A deadline that has passed already is given as this: zero would mean none."""

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
_FORGOTTEN = re.compile(r"Unable to find (?:system )?shared memory region")
"""How Triton begins when it has not been told of a region."""
_MICROSECONDS = 1_000_000


class Transport(ABC):
    """One protocol's connection to a server; safe to use from several threads.

    Every call raises :class:`ssd_triton.client.errors.ClientError`, one of its subclasses, by cause.
    """

    def __init__(self, url: str) -> None:
        self._url = url

    def is_ready(self, model: str) -> bool:
        """Whether the server is ready and has the model; raises ServerUnreachableError when nothing answers."""
        return self._call(lambda: bool(self._client().is_server_ready() and self._client().is_model_ready(model)))

    def is_server_ready(self) -> bool:
        """Whether the server calls itself ready; raises ServerUnreachableError when nothing answers."""
        return self._call(lambda: bool(self._client().is_server_ready()))

    def register_shared_memory(self, name: str, key: str, byte_size: int) -> None:
        """Tell the server of a system shared-memory region."""
        self._call(lambda: self._client().register_system_shared_memory(name, key, byte_size))

    def unregister_shared_memory(self, name: str) -> None:
        """Have the server forget a region."""
        self._call(lambda: self._client().unregister_system_shared_memory(name))

    @abstractmethod
    def registered_shared_memory(self) -> set[str]:
        """Names of the system shared-memory regions that the server knows, of all its clients."""

    @abstractmethod
    def infer(
        self,
        model: str,
        input_name: str,
        value: AnyArray | SharedInput,
        outputs: Sequence[str],
        timeout_s: float,
        *,
        request_id: str = "",
    ) -> Outputs:
        """Run one request within the given time; the server drops it from a queue when it has waited for so long.

        The server's log calls it by its id.
        """

    @abstractmethod
    def model_config(self, model: str) -> dict[str, Any]:
        """The configuration that the server has loaded, as JSON."""

    @abstractmethod
    def server_version(self) -> str:
        """Triton's version."""

    @abstractmethod
    def statistics(self) -> list[dict[str, Any]]:
        """Triton's statistics of every model that is loaded; 64-bit numbers may be text, and zeros may be left out."""

    @abstractmethod
    def repository_index(self, admin_key: str | None) -> list[dict[str, Any]]:
        """Every model of the repository, with its state; raises AccessDeniedError where that takes a key."""

    @abstractmethod
    def close(self) -> None:
        """Close all connections."""

    @abstractmethod
    def _client(self) -> Any:
        """The tritonclient's client for this thread."""

    @abstractmethod
    def _call(self, call: Callable[[], Result]) -> Result:
        """Run one of its calls, and turn its errors into ours."""


def make_transport(
    protocol: Literal["grpc", "http"], url: str, timeout_s: float, *, tls: Tls | None = None
) -> Transport:
    """Prepare a connection to ``host:port``; nothing is sent yet.

    Raises:
        TlsError: A file of ``tls`` cannot be used.
    """
    return GrpcTransport(url, tls) if protocol == "grpc" else HttpTransport(url, timeout_s, tls)


class GrpcTransport(Transport):
    """gRPC: one channel for all threads."""

    def __init__(self, url: str, tls: Tls | None = None) -> None:
        super().__init__(url)
        self._channel = open_channel(url, tls)

    def infer(
        self,
        model: str,
        input_name: str,
        value: AnyArray | SharedInput,
        outputs: Sequence[str],
        timeout_s: float,
        *,
        request_id: str = "",
    ) -> Outputs:
        """See :class:`Transport`; the deadline is the call's own."""
        requested = [grpc_client.InferRequestedOutput(name) for name in outputs]
        inputs = [as_input(grpc_client, input_name, value)]
        timeout_s = max(timeout_s, _SHORTEST_S)
        result = self._call(
            lambda: self._channel.infer(
                model,
                inputs,
                outputs=requested,
                request_id=request_id,
                client_timeout=timeout_s,
                timeout=int(timeout_s * _MICROSECONDS),
            )
        )
        return {name: result.as_numpy(name) for name in outputs}

    def registered_shared_memory(self) -> set[str]:
        """See :class:`Transport`."""
        return set(self._call(self._channel.get_system_shared_memory_status).regions)

    def model_config(self, model: str) -> dict[str, Any]:
        """See :class:`Transport`."""
        config: dict[str, Any] = self._call(lambda: self._channel.get_model_config(model, as_json=True))["config"]
        return config

    def server_version(self) -> str:
        """See :class:`Transport`."""
        return str(self._call(self._channel.get_server_metadata).version)

    def statistics(self) -> list[dict[str, Any]]:
        """See :class:`Transport`."""
        found = self._call(lambda: self._channel.get_inference_statistics(as_json=True))
        models: list[dict[str, Any]] = found.get("model_stats", [])
        return models

    def repository_index(self, admin_key: str | None) -> list[dict[str, Any]]:
        """See :class:`Transport`."""
        headers = {GRPC_ADMIN_HEADER: admin_key} if admin_key else None
        found = self._call(lambda: self._channel.get_model_repository_index(headers=headers, as_json=True))
        models: list[dict[str, Any]] = found.get("models", [])
        return models

    def close(self) -> None:
        """See :class:`Transport`."""
        self._channel.close()

    def _client(self) -> Any:
        return self._channel

    def _call(self, call: Callable[[], Result]) -> Result:
        try:
            return call()
        except InferenceServerException as error:
            raise from_grpc_error(error, self._url) from error


class HttpTransport(Transport):
    """HTTP: tritonclient's client belongs to one thread, so that each thread gets its own."""

    def __init__(self, url: str, timeout_s: float, tls: Tls | None = None) -> None:
        super().__init__(url)
        self._timeout_s = timeout_s
        self._tls_arguments = {} if tls is None else tls.http_arguments()
        self._local = threading.local()
        self._clients: list[Any] = []

    def infer(
        self,
        model: str,
        input_name: str,
        value: AnyArray | SharedInput,
        outputs: Sequence[str],
        timeout_s: float,
        *,
        request_id: str = "",
    ) -> Outputs:
        """See :class:`Transport`."""
        requested = [http_client.InferRequestedOutput(name, binary_data=True) for name in outputs]
        inputs = [as_input(http_client, input_name, value)]
        timeout_s = max(timeout_s, _SHORTEST_S)

        def run() -> Any:
            with gevent.Timeout(timeout_s, TimeoutError("deadline exceeded")):
                timeout_us = int(timeout_s * _MICROSECONDS)
                return self._client().infer(model, inputs, outputs=requested, request_id=request_id, timeout=timeout_us)

        result = self._call(run)
        return {name: result.as_numpy(name) for name in outputs}

    def registered_shared_memory(self) -> set[str]:
        """See :class:`Transport`."""
        return {region["name"] for region in self._call(lambda: self._client().get_system_shared_memory_status())}

    def model_config(self, model: str) -> dict[str, Any]:
        """See :class:`Transport`."""
        config: dict[str, Any] = self._call(lambda: self._client().get_model_config(model))
        return config

    def server_version(self) -> str:
        """See :class:`Transport`."""
        return str(self._call(lambda: self._client().get_server_metadata())["version"])

    def statistics(self) -> list[dict[str, Any]]:
        """See :class:`Transport`."""
        models: list[dict[str, Any]] = self._call(lambda: self._client().get_inference_statistics())["model_stats"]
        return models

    def repository_index(self, admin_key: str | None) -> list[dict[str, Any]]:
        """See :class:`Transport`."""
        headers = {ADMIN_HEADER: admin_key} if admin_key else None
        models: list[dict[str, Any]] = self._call(lambda: self._client().get_model_repository_index(headers=headers))
        return models

    def close(self) -> None:
        """See :class:`Transport`."""
        for client in self._clients:
            client.close()

    def _client(self) -> Any:
        if not hasattr(self._local, "client"):
            self._local.client = http_client.InferenceServerClient(
                self._url,
                connection_timeout=self._timeout_s,
                network_timeout=self._timeout_s,
                **self._tls_arguments,
            )
            self._clients.append(self._local.client)
        return self._local.client

    def _call(self, call: Callable[[], Result]) -> Result:
        try:
            return call()
        except InferenceServerException as error:
            raise _from_http_error(error, self._url) from error
        except TimeoutError as error:
            raise DeadlineExceededError(f"{self._url}: no answer within the deadline") from error
        except ssl.SSLError as error:
            raise _untrusted(self._url, str(error)) from error
        except (OSError, HTTPConnectionClosed, HTTPProtocolViolationError) as error:
            raise _unreachable(self._url, str(error)) from error


def open_channel(url: str, tls: Tls | None) -> Any:
    """Open tritonclient's gRPC client of ``host:port``."""
    arguments = {} if tls is None else tls.grpc_arguments()
    return grpc_client.InferenceServerClient(url, channel_args=CHANNEL_ARGS, **arguments)


def as_input(module: Any, name: str, value: AnyArray | SharedInput) -> Any:
    """An ``InferInput`` of tritonclient's gRPC or HTTP module, with its data or its place in shared memory."""
    if isinstance(value, tuple):
        region, byte_size, shape, dtype = value
        tensor = module.InferInput(name, shape, dtype)
        tensor.set_shared_memory(region, byte_size)
        return tensor
    dtype = "BYTES" if value.dtype == np.object_ else "UINT8"
    tensor = module.InferInput(name, list(value.shape), dtype)
    tensor.set_data_from_numpy(value)
    return tensor


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
        return _untrusted(url, message)
    if any(word in lower for word in _CONNECTION_WORDS):
        return _unreachable(url, message)
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


def _from_http_error(error: InferenceServerException, url: str) -> ClientError:
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
    if _FORGOTTEN.match(message):
        return SharedMemoryForgottenError(f"{url}: {message}: the server has been restarted")
    return None


def _unreachable(url: str, reason: str) -> ServerUnreachableError:
    return ServerUnreachableError(
        f"no Triton server answers at {url} ({' '.join(reason.split())[:120]}): start one with "
        "'python tools/serve.py', or give --url or --serve"
    )


def _untrusted(url: str, reason: str) -> TlsError:
    return TlsError(
        f"no trust between this client and {url} ({' '.join(reason.split())[:200]}): check --ssl-root-certificates, "
        "--ssl-certificate and --ssl-private-key, that the certificate names this host, and that the port speaks TLS"
    )


def _denied(url: str, reason: str) -> AccessDeniedError:
    return AccessDeniedError(f"{url}: {reason}: server.restricted_apis needs the key of server.admin_key_file")


def _without_ensemble(message: str) -> str:
    """Triton begins with the request's id and the ensemble's name; what a user needs is the reason."""
    return re.sub(r"^(?:\[request id: [^\]]*\] |in ensemble '[^']*', )*", "", message)
