"""Start Triton in a container: build the engine for this GPU, unless the cache has it, then become tritonserver.

Containers may share the cache of engines: one of them builds, the others wait for it. A variant without an engine, such
as one for the CPU, starts at once. Signals reach tritonserver directly: on SIGTERM it finishes the requests in flight.
Arguments after -- are passed to tritonserver.
"""

from __future__ import annotations

import argparse
import logging

from ssd_triton.commands.options import add_option
from ssd_triton.config import Config

EXAMPLE = "ssd-triton container --variant onnx_int8 -- --log-verbose=1"


def add_arguments(parser: argparse.ArgumentParser, config: Config) -> None:
    """Add the options of this verb."""
    add_option(parser, config, "--variant", "container.variant")
    add_option(parser, config, "--model-repository", "model_repository")
    add_option(parser, config, "--engine-cache", "container.engine_cache")
    add_option(parser, config, "--runtime-dir", "container.runtime_dir")
    add_option(parser, config, "--builder-timeout-s", "container.builder_timeout_s")
    add_option(parser, config, "--runtime", "tensorrt.runtime")
    parser.add_argument(
        "--compute-capability",
        metavar="X.Y",
        help="compute capability of a GPU that is not here, with tensorrt-rtx; by default this GPU's",
    )
    parser.add_argument("--build-only", action="store_true", help="fill the cache and end")
    for name in ("host", "grpc_port", "http_port", "metrics_port", "shutdown_timeout_s", "cuda_memory_pool_mib"):
        add_option(parser, config, f"--{name.replace('_', '-')}", f"server.{name}")
    add_option(parser, config, "--expose", "server.expose")
    parser.add_argument(
        "triton_options", nargs="*", metavar="-- OPTION", help="options of tritonserver, such as --log-verbose=1"
    )


def run(args: argparse.Namespace, config: Config) -> int:
    """Prepare, then become the server; return only with ``--build-only``."""
    from ssd_triton.serving.container.entry_point import exec_server, prepare

    prepared = prepare(config, logging.info, compute_capability=args.compute_capability)
    if not args.build_only:
        exec_server(prepared, config, args.triton_options)
    print(f"{prepared.variant}: {prepared.repository}")
    return 0
