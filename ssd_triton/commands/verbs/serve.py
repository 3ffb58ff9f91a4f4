"""Serve the model repository with a Triton server on this machine, until Ctrl-C.

Uses tritonserver from PATH with its native backends if there is one, otherwise the server of the wheel. Artefacts that
are missing or out of date are built first. A server that dies is restarted, up to server.max_restarts times in ten
minutes; clients that retry lose only seconds.

Without --expose all models of the repository are loaded: ssd_frames, ssd_preprocess_frames and the members of the
ensembles are then open to every client, and a raw frame with a malformed shape ends the server. If strangers can reach
the server, use --expose, which loads only 'ssd' and its members.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
from pathlib import Path

from ssd_triton.commands.options import add_option
from ssd_triton.common.files import relative_to_cwd
from ssd_triton.common.interrupts import interrupt_once
from ssd_triton.config import Config

EXAMPLE = "ssd-triton serve --variant onnx_fp32 --grpc-port 0"


def add_arguments(parser: argparse.ArgumentParser, config: Config) -> None:
    """Add the options of this verb."""
    add_option(parser, config, "--model-repository", "model_repository")
    add_option(parser, config, "--variant", "variant")
    for name in ("host", "grpc_port", "http_port", "metrics_port", "startup_timeout_s", "cuda_memory_pool_mib"):
        add_option(parser, config, f"--{name.replace('_', '-')}", f"server.{name}")
    add_option(parser, config, "--expose", "server.expose")
    add_option(parser, config, "--max-restarts", "server.max_restarts")
    add_option(parser, config, "--admin-key-file", "server.admin_key_file")
    add_option(parser, config, "--model-control", "server.model_control")
    add_option(parser, config, "--ssl-certificate", "server.tls.certificate")
    add_option(parser, config, "--ssl-private-key", "server.tls.private_key")
    add_option(parser, config, "--ssl-client-ca", "server.tls.client_ca")
    parser.add_argument("--log", type=Path, default=Path("reports/tritonserver.log"), help="log of Triton")
    parser.add_argument("--no-build", action="store_true", help="serve the artefacts as they are")


def run(args: argparse.Namespace, config: Config) -> int:
    """Serve until interrupted."""
    from ssd_triton.serving.repository.ensure import ensure_built_if_possible
    from ssd_triton.serving.server import EmbeddedServer, Supervisor

    def report_ready(server: EmbeddedServer) -> None:
        print(
            f"ready: {config.variant}, gRPC {server.url('grpc')}, HTTP {server.url('http')}, metrics "
            f"{server.metrics_url}, log {relative_to_cwd(args.log)}; Ctrl-C stops",
            flush=True,
        )

    if not args.no_build:
        ensure_built_if_possible(config, config.variant, logging.info)
    with contextlib.suppress(KeyboardInterrupt):
        interrupt_once()
        Supervisor(config.model_repository, config.variant, config.server, args.log).run(report_ready)
    return 0
