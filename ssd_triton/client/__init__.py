"""Talking to a Triton server that serves the ``ssd`` ensembles: typed detections in, typed errors out."""

from ssd_triton.client.client import DetectorClient
from ssd_triton.client.errors import (
    AccessDeniedError,
    ClientError,
    DeadlineExceededError,
    RequestRefusedError,
    ServerFailedError,
    ServerNotReadyError,
    ServerUnreachableError,
    SharedMemoryUnavailableError,
    TlsError,
)
from ssd_triton.client.tls import Tls

__all__ = [
    "AccessDeniedError",
    "ClientError",
    "DeadlineExceededError",
    "DetectorClient",
    "RequestRefusedError",
    "ServerFailedError",
    "ServerNotReadyError",
    "ServerUnreachableError",
    "SharedMemoryUnavailableError",
    "Tls",
    "TlsError",
]
