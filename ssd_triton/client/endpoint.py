"""Names and rules of access that client and server share."""

from __future__ import annotations

import ipaddress

ADMIN_HEADER = "ssd-admin-key"
"""HTTP header with the key of restricted APIs."""
GRPC_ADMIN_HEADER = f"triton-grpc-protocol-{ADMIN_HEADER}"
"""The same for gRPC, with the prefix that Triton requires."""


def is_loopback(host: str) -> bool:
    """Whether a host name or address is certainly this machine's loopback."""
    host = host.strip("[]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
