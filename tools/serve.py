"""Serve the model repository with a Triton server on this machine, until Ctrl-C.

Uses tritonserver from PATH with its native backends where there is one, and the server of the wheel otherwise.
Artefacts that are missing or out of date are built first.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import time
from pathlib import Path

from ssd_triton.commands import runner
from ssd_triton.common.errors import ConfigError
from ssd_triton.common.yaml_file import validated
from ssd_triton.config import Config, ServerConfig
from ssd_triton.serving.repository.ensure import ensure_built_if_possible
from ssd_triton.serving.server import EmbeddedServer

_CHECK_INTERVAL_S = 0.5


def add_arguments(parser: argparse.ArgumentParser, config: Config) -> None:
    """Options of this command."""
    server = config.server
    parser.add_argument("--model-repository", type=Path, default=config.model_repository, help="folder")
    parser.add_argument("--variant", default=config.variant, help="of the detector: a name in its configs/ folder")
    parser.add_argument("--host", default=server.host, help="address to listen on; 0.0.0.0 for every interface")
    parser.add_argument("--grpc-port", type=int, default=server.grpc_port, help="0 takes any free port")
    parser.add_argument("--http-port", type=int, default=server.http_port, help="0 takes any free port")
    parser.add_argument("--metrics-port", type=int, default=server.metrics_port, help="0 takes any free port")
    parser.add_argument("--startup-timeout-s", type=float, default=server.startup_timeout_s, help="seconds")
    parser.add_argument(
        "--cuda-memory-pool-mib",
        type=int,
        default=server.cuda_memory_pool_mib,
        help="on each GPU, for tensors between models",
    )
    parser.add_argument(
        "--admin-key-file", type=Path, default=server.admin_key_file, help="opens server.restricted_apis to its key"
    )
    parser.add_argument(
        "--model-control",
        action=argparse.BooleanOptionalAction,
        default=server.model_control,
        help="let who has the admin key load and unload models, and with that run any code",
    )
    parser.add_argument("--ssl-certificate", type=Path, default=server.tls.certificate, help="PEM; TLS for gRPC")
    parser.add_argument("--ssl-private-key", type=Path, default=server.tls.private_key, help="PEM, of the certificate")
    parser.add_argument(
        "--ssl-client-ca", type=Path, default=server.tls.client_ca, help="PEM; clients need a certificate of it"
    )
    parser.add_argument("--log", type=Path, default=Path("reports/tritonserver.log"), help="Triton's log")
    parser.add_argument("--no-build", action="store_true", help="serve the artefacts as they are")


def main() -> int:
    """Serve until interrupted."""
    args, config = runner.parse(str(__doc__), "python tools/serve.py --variant onnx_fp32 --grpc-port 0", add_arguments)
    settings = _settings(args, config)
    repository = args.model_repository.resolve()
    if not args.no_build:
        served = config.model_copy(update={"model_repository": repository})
        ensure_built_if_possible(served, args.variant, logging.info)
    with EmbeddedServer(repository, args.variant, settings, log_path=args.log) as server:
        print(
            f"ready: {args.variant}, gRPC {server.url('grpc')}, HTTP {server.url('http')}, metrics "
            f"{server.metrics_url}, log {args.log}; Ctrl-C stops",
            flush=True,
        )
        with contextlib.suppress(KeyboardInterrupt):
            while True:
                server.check()
                time.sleep(_CHECK_INTERVAL_S)
    return 0


def _settings(args: argparse.Namespace, config: Config) -> ServerConfig:
    """The server's section of the configuration with the flags in it, checked again."""
    ports = ("grpc_port", "http_port", "metrics_port")
    names = ("host", *ports, "startup_timeout_s", "cuda_memory_pool_mib", "admin_key_file", "model_control")
    tls = {"certificate": args.ssl_certificate, "private_key": args.ssl_private_key, "client_ca": args.ssl_client_ca}
    flags = {name: getattr(args, name) for name in names}
    return validated(
        {**config.server.model_dump(), **flags, "tls": tls}, ServerConfig, name="server", error_type=ConfigError
    )


if __name__ == "__main__":
    runner.run(main)
