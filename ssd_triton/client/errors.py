"""What can go wrong with a request, by cause."""

from __future__ import annotations

from ssd_triton.common.errors import UserError


class ClientError(UserError):
    """A request failed.

    Attributes:
        request_id: What the server's log calls the request; None where no inference was asked for.
    """

    request_id: str | None = None


class ServerUnreachableError(ClientError):
    """Nothing answers at the address, or the connection broke. Inference changes nothing: trying again is safe."""


class ServerNotReadyError(ClientError):
    """The server answers, but the model is not there (yet, or any longer). Safe to retry."""


class ServerStoppingError(ServerNotReadyError):
    """The server is about to end. Its replicas, or who comes after it, may answer: safe to retry, for some seconds."""


class ServerOverloadedError(ClientError):
    """A model's queue is full, or the request waited there for too long. Retry only after a pause, or on a replica."""


class RequestRefusedError(ClientError):
    """The server refused this input: it would refuse it again."""


class DeadlineExceededError(ClientError):
    """No answer within the time allowed."""


class SharedMemoryUnavailableError(ClientError):
    """The server cannot map this machine's shared memory: it runs elsewhere, or in a container of its own."""


class SharedMemoryForgottenError(ClientError):
    """The server does not know a region that it was told of: it has been restarted. Told again, it will."""


class TlsError(ClientError):
    """No trust between client and server, or the files for it are missing or unusable."""


class ServerFailedError(ClientError):
    """The server reports an error of its own."""


class BackendProcessDiedError(ServerFailedError):
    """A process of the python backend has died; Triton does not start it again, its server must be restarted."""


class AccessDeniedError(ServerFailedError):
    """The server wants a key for this, and got none or another one."""
