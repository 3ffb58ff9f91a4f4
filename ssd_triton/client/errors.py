"""Errors of a request, by cause.

The tree; ``*`` marks what :class:`~ssd_triton.client.DetectorClient` retries by itself::

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
    """The server answers, but the model is not loaded (yet, or any longer). A retry is safe."""


class ServerStoppingError(ServerNotReadyError):
    """The server is shutting down. A replica or its successor may answer a retry within some seconds."""


class ServerOverloadedError(ClientError):
    """A model's queue is full, or the request waited there for too long. Retry after a pause, or on a replica."""


class RequestRefusedError(ClientError):
    """The server refused this input, and would refuse it again."""


class DeadlineExceededError(ClientError):
    """No answer within the time allowed."""


class SharedMemoryUnavailableError(ClientError):
    """The server cannot map this machine's shared memory: it runs elsewhere, or in a container of its own."""


class SharedMemoryForgottenError(ClientError):
    """The server has restarted and no longer knows a region. A retry registers the region again."""


class SpoiledBatchError(ClientError):
    """Another client's broken request was in the same batch, and Triton refused them all. A retry is safe."""


class FramesNotServedError(ClientError):
    """The server serves files and no raw frames. The client then sends frames as files by itself."""


class TlsError(ClientError):
    """Client and server do not trust each other, or the PEM files are missing or unusable."""


class ServerFailedError(ClientError):
    """The server reports an error of its own."""


class BackendProcessDiedError(ServerFailedError):
    """A process of the python backend has died. Triton does not start it again; the server must be restarted."""


class AccessDeniedError(ServerFailedError):
    """The call needs a key, and got none or a wrong one."""
