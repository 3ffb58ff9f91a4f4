"""What client and server agree on about access: where it comes from, and where a key is shown."""

from __future__ import annotations

import ipaddress

ADMIN_HEADER = "ssd-admin-key"
"""HTTP header of the key of restricted APIs."""
GRPC_ADMIN_HEADER = f"triton-grpc-protocol-{ADMIN_HEADER}"
"""The same for gRPC: Triton puts this prefix before the name."""


def is_loopback(host: str) -> bool:
    """Whether a host name or address is certainly this machine's loopback."""
    host = host.strip("[]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
