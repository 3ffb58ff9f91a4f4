"""Addresses of a server, and header names that clients and servers share."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Literal

from ssd_triton.common.errors import ConfigError

ADMIN_HEADER = "ssd-admin-key"
"""HTTP header with the key of restricted APIs."""
GRPC_ADMIN_HEADER = f"triton-grpc-protocol-{ADMIN_HEADER}"
"""The same for gRPC, with the prefix that Triton requires."""

_SCHEMES = {
    "grpc": ("grpc", False, None),
    "grpcs": ("grpc", True, None),
    "http": ("http", False, 80),
    "https": ("http", True, 443),
}
"""Protocol of each scheme, whether it uses TLS, and the default port if it has one."""
_RESOLVER = re.compile(r"dns:/{2,3}|unix(-abstract)?:|ipv[46]:")
"""Begins an address that gRPC itself resolves, possibly to several replicas."""
_HOST = re.compile(r"[A-Za-z0-9._-]+")
_EXAMPLE = {"grpc": "localhost:8001 or [::1]:8001", "http": "localhost:8000 or [::1]:8000"}


@dataclass(frozen=True)
class Endpoint:
    """Where a client connects to.

    Attributes:
        target: ``host:port``, with an IPv6 address in brackets. For HTTP a path may follow; for gRPC a prefix may name
            a resolver.
        hosts: Names or addresses of the hosts; empty when a resolver finds them.
    """

    target: str
    hosts: tuple[str, ...]

    @property
    def is_loopback(self) -> bool:
        """Whether all hosts are known to be this machine's loopback."""
        return bool(self.hosts) and all(map(is_loopback, self.hosts))


def parse_endpoint(url: str, protocol: Literal["grpc", "http"], *, tls: bool = False) -> Endpoint:
    """Read an address as users write it.

    Args:
        url: ``host:port``, optionally after ``grpc://`` or ``http://`` (``grpcs://`` or ``https://`` with TLS). With
            http(s) the port may be missing, and a path may follow. gRPC also takes ``dns:///name:port`` and
            ``ipv4:host:port,host:port``.
        protocol: The port's protocol.
        tls: Whether the connection uses TLS.

    Raises:
        ConfigError: It is not a valid address, or its scheme is for another protocol.
    """
    if protocol == "grpc" and (match := _RESOLVER.match(url)) is not None:
        return _resolved(url, match[0])
    scheme, separator, rest = url.rpartition("://")
    default_port = None
    if separator:
        default_port = _check_scheme(url, scheme.lower(), protocol, tls)
    address, slash, path = rest.partition("/")
    if path and protocol == "grpc":
        raise _refusal(url, f"the path /{path}", protocol)
    host, port = _host_and_port(url, address, protocol, default_port)
    return Endpoint(host_port(host, port) + (f"/{path}" if slash and path else ""), (host,))


def host_port(host: str, port: int) -> str:
    """Return ``host:port``, with an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_loopback(host: str) -> bool:
    """Whether a host name or address is known to be this machine's loopback."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _resolved(url: str, prefix: str) -> Endpoint:
    """Return the endpoint for an address that gRPC resolves; a list of addresses is checked here."""
    if not prefix.startswith("ipv"):
        return Endpoint(url, ())
    hosts = [_host_and_port(url, one, "grpc", None)[0] for one in url.removeprefix(prefix).split(",")]
    return Endpoint(url, tuple(hosts))


def _check_scheme(url: str, scheme: str, protocol: str, tls: bool) -> int | None:
    """Return the default port of a scheme, None without one, or refuse a scheme that does not fit."""
    if scheme not in _SCHEMES:
        raise _refusal(url, f"the scheme {scheme}://", protocol)
    named, with_tls, port = _SCHEMES[scheme]
    if named != protocol:
        raise ConfigError(
            f"got the address '{url}' for protocol {protocol}, expected one such as {_EXAMPLE[protocol]}; "
            f"give that, or --protocol {named}"
        )
    if with_tls != tls:
        there, step = ("without", "add --ssl") if with_tls else ("with", f"write {scheme}s://, or leave the scheme out")
        raise ConfigError(f"got the address '{url}' {there} TLS, expected the same of both; {step}")
    return port


def _host_and_port(url: str, address: str, protocol: str, default_port: int | None) -> tuple[str, int]:
    """Split ``host:port``; an IPv6 address loses its brackets."""
    if address.startswith("["):
        host, closed, rest = address[1:].partition("]")
        _, colon, port = rest.partition(":")
        if not closed or (rest and not rest.startswith(":")) or not _is_ipv6(host):
            raise _refusal(url, "no IPv6 address in the brackets", protocol)
    else:
        host, colon, port = address.rpartition(":") if ":" in address else (address, "", "")
        if ":" in host:
            raise _refusal(url, "more than one colon outside brackets", protocol)
        if not _HOST.fullmatch(host):
            raise _refusal(url, f"the host '{host}'" if host else "no host", protocol)
    if not colon and default_port is not None:
        return host, default_port
    if not (port.isascii() and port.isdecimal() and len(port) <= 5 and 1 <= int(port) <= 65535):
        raise _refusal(url, f"the port '{port}'" if colon else "no port", protocol)
    return host, int(port)


def _is_ipv6(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).version == 6
    except ValueError:
        return False


def _refusal(url: str, what: str, protocol: str) -> ConfigError:
    return ConfigError(
        f"got {what} in the address '{url}', expected one such as {_EXAMPLE[protocol]}; give it with --url"
    )
