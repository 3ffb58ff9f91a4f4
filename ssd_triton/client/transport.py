"""The two protocols behind one interface: tritonclient's calls, and its many errors as our few."""

from __future__ import annotations

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

from ssd_triton.client.causes import from_grpc_error, from_http_error, unreachable, untrusted
from ssd_triton.client.endpoint import ADMIN_HEADER, GRPC_ADMIN_HEADER
from ssd_triton.client.errors import DeadlineExceededError
from ssd_triton.client.tls import Tls
from ssd_triton.common.arrays import AnyArray

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
            raise from_http_error(error, self._url) from error
        except TimeoutError as error:
            raise DeadlineExceededError(f"{self._url}: no answer within the deadline") from error
        except ssl.SSLError as error:
            raise untrusted(self._url, str(error)) from error
        except (OSError, HTTPConnectionClosed, HTTPProtocolViolationError) as error:
            raise unreachable(self._url, str(error)) from error


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
