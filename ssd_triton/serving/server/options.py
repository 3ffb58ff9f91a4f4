"""The options of ``tritonserver`` that this project always gives."""

from __future__ import annotations

import resource
from pathlib import Path

from ssd_triton.config import ServerConfig
from ssd_triton.serving.server.protection import plain_text_host, protection_options

_MOST_GPUS = 16
"""Most GPUs in one machine; Triton ignores pools for GPUs that are not present."""
_MOST_DESCRIPTORS = 1 << 20
"""Soft limit of a server's open descriptors, unless the hard limit is lower; some systems have no hard limit."""


def descriptor_limit() -> tuple[int, int]:
    """Return soft and hard limit of open descriptors for a server, in which every idle connection takes one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY or hard > _MOST_DESCRIPTORS:
        return (soft if soft > _MOST_DESCRIPTORS else _MOST_DESCRIPTORS), hard
    return hard, hard


def server_options(model_repository: Path, variant: str, config: ServerConfig) -> list[str]:
    """Return the command-line options, without the binary.

    Args:
        model_repository: The folder of models.
        variant: The detector's variant, for ``--model-config-name``.
        config: Addresses, deadlines and protection; ports are passed on unchanged.

    Raises:
        ConfigError: The admin key or a file of the TLS settings cannot be read.
    """
    # HTTP and gRPC in Triton expect IPv6 addresses in different notations.
    plain_host, grpc_host = plain_text_host(config), config.host
    plain_host = f"ipv6:{plain_host}" if ":" in plain_host else plain_host
    grpc_host = f"[{grpc_host}]" if ":" in grpc_host else grpc_host
    return [
        *("--model-repository", str(model_repository), "--model-config-name", variant),
        *("--http-address", plain_host, "--http-port", str(config.http_port)),
        *("--grpc-address", grpc_host, "--grpc-port", str(config.grpc_port)),
        *("--metrics-address", plain_host, "--metrics-port", str(config.metrics_port)),
        *protection_options(config),
        # Tensors that do not fit into the pool pass between models through host memory. Triton's default is 64 MiB.
        *(f"--cuda-memory-pool-byte-size={gpu}:{config.cuda_memory_pool_mib * 2**20}" for gpu in range(_MOST_GPUS)),
        # Triton keeps the buffers of the largest gRPC requests that it has received, 8 by default.
        "--grpc-infer-allocation-pool-size=1",
        # The configurations are complete, and auto-completion would start every Python model twice.
        "--disable-auto-complete-config",
        f"--exit-timeout-secs={max(1, int(config.shutdown_timeout_s))}",
    ]
