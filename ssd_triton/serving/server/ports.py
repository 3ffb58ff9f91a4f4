"""Finds free ports, and checks that the ports of a server are free."""

from __future__ import annotations

import contextlib
import errno
import socket

from ssd_triton.client.endpoint import host_port
from ssd_triton.common.errors import ServerError
from ssd_triton.config import ServerConfig
from ssd_triton.serving.server.protection import plain_text_host

_NAMES = ("grpc_port", "http_port", "metrics_port")


def with_free_ports(config: ServerConfig) -> ServerConfig:
    """Replace a host name by its address, and every port of 0 by a port that is free at the moment.

    Raises:
        ServerError: The address is not this machine's.
    """
    # Triton's HTTP endpoint takes addresses only.
    with contextlib.suppress(socket.gaierror):
        if ":" not in config.host:
            config = config.model_copy(update={"host": socket.gethostbyname(config.host)})
    with contextlib.ExitStack() as stack:
        free = {}
        for name in _NAMES:
            if getattr(config, name) == 0:
                # All sockets stay open until the last port is found, so that no port is chosen twice.
                listener = stack.enter_context(bound_socket(config.host, 0, name))
                free[name] = listener.getsockname()[1]
    return config.model_copy(update=free)


def free_port(host: str) -> int:
    """Return a port that is free at the moment."""
    with bound_socket(host, 0, "port") as listener:
        port: int = listener.getsockname()[1]
        return port


def check_ports(config: ServerConfig) -> None:
    """Refuse a port that is taken, since the server there would answer the readiness check.

    Raises:
        ServerError: Something listens on a port, or its address is not this machine's.
    """
    for name in _NAMES:
        host = config.host if name == "grpc_port" else plain_text_host(config)
        bound_socket(host, getattr(config, name), name).close()


def bound_socket(host: str, port: int, name: str) -> socket.socket:
    """Return a socket bound to a port, or to any free one for 0.

    Args:
        host: Address or name.
        port: The port.
        name: Name of the port's option, for the message.

    Raises:
        ServerError: The port is taken, or the address is not this machine's.
    """
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    if port:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        step = f"set another {name}; 0 takes any free one"
        if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
            step = "give --host an address of this machine, such as 127.0.0.1, 0.0.0.0 or ::1"
        raise ServerError(f"cannot listen on {host_port(host, port)} ({error.strerror}): {step}") from error
    return listener
