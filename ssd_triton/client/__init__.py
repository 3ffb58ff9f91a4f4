"""The client for a Triton server with the ``ssd`` ensembles: takes images, returns typed detections or typed errors.

Start with :class:`DetectorClient`; :mod:`ssd_triton.client.errors` shows the tree of errors. Importing the package
loads only NumPy: the library of a protocol is loaded when a client for that protocol is made.
"""

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
from ssd_triton.client.inputs import ImageInput
from ssd_triton.client.tls import Tls

__all__ = [
    "AccessDeniedError",
    "BackendProcessDiedError",
    "ClientError",
    "DeadlineExceededError",
    "DetectorClient",
    "ImageInput",
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
