"""Ports to listen on."""

from __future__ import annotations

import contextlib
import socket

from ssd_triton.common.errors import ServerError
from ssd_triton.config import ServerConfig
from ssd_triton.serving.server.protection import plain_text_host

_NAMES = ("grpc_port", "http_port", "metrics_port")


def with_free_ports(config: ServerConfig) -> ServerConfig:
    """Replace every port of 0 by one that nothing listens on at the moment."""
    with contextlib.ExitStack() as stack:
        free = {}
        for name in _NAMES:
            if getattr(config, name) == 0:
                # All are held until the last is found: no port is given twice.
                listener = stack.enter_context(socket.socket())
                listener.bind((config.host, 0))
                free[name] = listener.getsockname()[1]
    return config.model_copy(update=free)


def free_port(host: str) -> int:
    """Give a port that nothing listens on at the moment."""
    with socket.socket() as listener:
        listener.bind((host, 0))
        port: int = listener.getsockname()[1]
        return port


def check_ports(config: ServerConfig) -> None:
    """Refuse a port that is taken: another server would answer the readiness check.

    Raises:
        ServerError: Something listens on a port, or its address is not this machine's.
    """
    for name in _NAMES:
        host = config.host if name == "grpc_port" else plain_text_host(config)
        port = getattr(config, name)
        with socket.socket() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind((host, port))
            except OSError as error:
                raise ServerError(
                    f"cannot listen on {host}:{port} ({error.strerror}): set another {name}; 0 takes any free one"
                ) from error
