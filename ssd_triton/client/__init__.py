"""Talking to a Triton server that serves the ``ssd`` ensembles: typed detections in, typed errors out."""

from ssd_triton.client.client import DetectorClient
from ssd_triton.client.errors import (
    BackendProcessDiedError,
    ClientError,
    DeadlineExceededError,
    RequestRefusedError,
    ServerFailedError,
    ServerNotReadyError,
    ServerOverloadedError,
    ServerUnreachableError,
    SharedMemoryUnavailableError,
)

__all__ = [
    "BackendProcessDiedError",
    "ClientError",
    "DeadlineExceededError",
    "DetectorClient",
    "RequestRefusedError",
    "ServerFailedError",
    "ServerNotReadyError",
    "ServerOverloadedError",
    "ServerUnreachableError",
    "SharedMemoryUnavailableError",
]
