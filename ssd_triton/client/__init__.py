"""The client of a Triton server with the ``ssd`` ensembles: images in, typed detections or errors by cause out.

:class:`DetectorClient` is the way in; :mod:`ssd_triton.client.errors` shows the tree of errors. Importing the package
loads NumPy alone: a protocol's library is loaded when a client of that protocol is made.
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
