"""Talking to a Triton server that serves the ``ssd`` ensembles: typed detections in, typed errors out."""

from ssd_triton.client.client import DetectorClient
from ssd_triton.client.errors import (
    ClientError,
    DeadlineExceededError,
    RequestRefusedError,
    ServerFailedError,
    ServerNotReadyError,
    ServerUnreachableError,
    SharedMemoryUnavailableError,
)

__all__ = [
    "ClientError",
    "DeadlineExceededError",
    "DetectorClient",
    "RequestRefusedError",
    "ServerFailedError",
    "ServerNotReadyError",
    "ServerUnreachableError",
    "SharedMemoryUnavailableError",
]
