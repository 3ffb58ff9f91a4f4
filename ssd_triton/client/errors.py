"""Errors of a request, by cause.

In this tree, ``*`` marks what :class:`~ssd_triton.client.DetectorClient` retries by itself::

    UserError
    └── ClientError
        ├── ServerUnreachableError *
        ├── ServerNotReadyError *
        │   └── ServerStoppingError *
        ├── ServerOverloadedError *
        ├── RequestRefusedError
        ├── DeadlineExceededError            * with retry_s
        ├── SharedMemoryUnavailableError
        ├── SharedMemoryForgottenError *
        ├── SpoiledBatchError *
        ├── FramesNotServedError
        ├── TlsError
        └── ServerFailedError
            ├── BackendProcessDiedError      * with retry_s
            └── AccessDeniedError
"""

from __future__ import annotations

from ssd_triton.common.errors import UserError


class ClientError(UserError):
    """A request failed.

    Attributes:
        request_id: The request's name in the server's log; None for calls other than inference.
    """

    request_id: str | None = None


class ServerUnreachableError(ClientError):
    """Nothing answers at the address, or the connection broke. Inference changes nothing: a retry is safe."""


class ServerNotReadyError(ClientError):
    """The server answers, but the model is not loaded yet, or was unloaded. A retry is safe."""


class ServerStoppingError(ServerNotReadyError):
    """The server is shutting down. A replica, or the restarted server, may answer a retry within seconds."""


class ServerOverloadedError(ClientError):
    """A model's queue is full, or the request waited there for too long. Retry after a pause or on a replica."""


class RequestRefusedError(ClientError):
    """The server refused this input, and would refuse it again."""


class DeadlineExceededError(ClientError):
    """The server did not answer within the deadline."""


class SharedMemoryUnavailableError(ClientError):
    """The server cannot map this machine's shared memory: it runs on another machine, or in its own container."""


class SharedMemoryForgottenError(ClientError):
    """The server was restarted and does not know a region of shared memory. A retry registers it again."""


class SpoiledBatchError(ClientError):
    """Another client's broken request was in the same batch, and Triton refused them all. A retry is safe."""


class FramesNotServedError(ClientError):
    """The server takes encoded images but no raw frames. The client then sends frames as files on its own."""


class TlsError(ClientError):
    """Client and server do not trust each other, or the PEM files are missing or unusable."""


class ServerFailedError(ClientError):
    """The server reports a fault on its side."""


class BackendProcessDiedError(ServerFailedError):
    """A process of the python backend has died. Triton does not restart it; the server itself must be restarted."""


class AccessDeniedError(ServerFailedError):
    """The call needs the admin key, and got none or a wrong one."""
