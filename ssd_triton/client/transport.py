"""The interface that gRPC and HTTP share: the calls to a server, with errors by cause."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeVar

import numpy as np

from ssd_triton.client.tls import Tls
from ssd_triton.common.arrays import AnyArray

Result = TypeVar("Result")
Outputs = dict[str, AnyArray]
"""A response's tensors by name."""
SharedInput = tuple[str, int, list[int], str]
"""A tensor in shared memory: region, bytes, shape and Triton's name of the dtype."""


class Transport(ABC):
    """A connection to a server in one protocol; safe to use from several threads.

    Every call raises a subclass of :class:`ssd_triton.client.errors.ClientError`, by cause.
    """

    def __init__(self, url: str, **limit: float) -> None:
        """Prepare the calls that both protocols share.

        Args:
            url: ``host:port``.
            limit: Keyword argument with the deadline for each call of tritonclient, in a protocol that takes one.
        """
        self._url = url
        self._limit = limit

    def is_ready(self, model: str) -> bool:
        """Whether the server is ready and the model is loaded; raises ServerUnreachableError when nothing answers."""
        return self.is_server_ready() and self._call(lambda: bool(self._client().is_model_ready(model, **self._limit)))

    def is_server_ready(self) -> bool:
        """Whether the server reports itself ready; raises ServerUnreachableError when nothing answers."""
        return self._call(lambda: bool(self._client().is_server_ready(**self._limit)))

    def register_shared_memory(self, name: str, key: str, byte_size: int) -> None:
        """Register a system shared-memory region, which the server then maps."""
        self._call(lambda: self._client().register_system_shared_memory(name, key, byte_size, **self._limit))

    def unregister_shared_memory(self, name: str) -> None:
        """Unregister a region of shared memory."""
        self._call(lambda: self._client().unregister_system_shared_memory(name, **self._limit))

    @abstractmethod
    def registered_shared_memory(self) -> set[str]:
        """Return the names of the registered system shared-memory regions of all clients."""

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
        """Run one request within ``timeout_s``; the server also drops it when it has waited in a queue for that long.

        ``request_id`` names the request in the server's log.
        """

    @abstractmethod
    def model_config(self, model: str) -> dict[str, Any]:
        """Return the configuration that the server has loaded for a model, as JSON values."""

    @abstractmethod
    def server_version(self) -> str:
        """Return Triton's version."""

    @abstractmethod
    def statistics(self) -> list[dict[str, Any]]:
        """Return Triton's statistics of every loaded model; 64-bit numbers may be text, and zeros may be absent."""

    @abstractmethod
    def repository_index(self, admin_key: str | None) -> list[dict[str, Any]]:
        """Return every model of the repository with its state; raises AccessDeniedError where that needs a key."""

    @abstractmethod
    def close(self) -> None:
        """Close all connections."""

    @abstractmethod
    def _client(self) -> Any:
        """Return this thread's client of tritonclient."""

    @abstractmethod
    def _call(self, call: Callable[[], Result]) -> Result:
        """Run a call of tritonclient, and convert its errors to those of this package."""


def make_transport(
    protocol: Literal["grpc", "http"], url: str, timeout_s: float, *, tls: Tls | None = None
) -> Transport:
    """Prepare a connection; nothing is sent yet.

    Args:
        protocol: The port's protocol.
        url: Address, as for :func:`ssd_triton.client.endpoint.parse_endpoint`.
        timeout_s: Deadline of every call except :meth:`Transport.infer`, which takes its own.
        tls: Certificates for a port with TLS; None for a port without.

    Raises:
        ConfigError: ``url`` is not an address of that protocol.
        TlsError: A file of ``tls`` cannot be used.
    """
    # Each protocol needs a large library: only the one in use is imported.
    if protocol == "grpc":
        from ssd_triton.client.grpc_transport import GrpcTransport

        return GrpcTransport(url, timeout_s, tls)
    from ssd_triton.client.http_transport import HttpTransport

    return HttpTransport(url, timeout_s, tls)


def as_input(module: Any, name: str, value: AnyArray | SharedInput) -> Any:
    """Return an ``InferInput`` of tritonclient's gRPC or HTTP module, with its data or its region of shared memory."""
    if isinstance(value, tuple):
        region, byte_size, shape, dtype = value
        tensor = module.InferInput(name, shape, dtype)
        tensor.set_shared_memory(region, byte_size)
        return tensor
    dtype = "BYTES" if value.dtype == np.object_ else "UINT8"
    tensor = module.InferInput(name, list(value.shape), dtype)
    tensor.set_data_from_numpy(value)
    return tensor


def as_timeouts(timeout_s: float) -> tuple[float, int]:
    """Return a request's limit for the connection, in seconds, and for the server's queues, in microseconds.

    A deadline that has passed becomes a millisecond, since zero would mean no limit.
    """
    timeout_s = max(timeout_s, 1e-3)
    return timeout_s, int(timeout_s * 1_000_000)
