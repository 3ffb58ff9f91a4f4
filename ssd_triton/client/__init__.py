"""Talking to a Triton server that serves the ``ssd`` ensembles: typed detections in, typed errors out."""

from ssd_triton.client.client import DetectorClient
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
    SharedMemoryUnavailableError,
    TlsError,
)
from ssd_triton.client.tls import Tls

__all__ = [
    "AccessDeniedError",
    "BackendProcessDiedError",
    "ClientError",
    "DeadlineExceededError",
    "DetectorClient",
    "RequestRefusedError",
    "ServerFailedError",
    "ServerNotReadyError",
    "ServerOverloadedError",
    "ServerStoppingError",
    "ServerUnreachableError",
    "SharedMemoryUnavailableError",
    "Tls",
    "TlsError",
]
