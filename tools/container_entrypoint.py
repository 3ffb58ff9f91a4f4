"""Start Triton in a container: build the engine that this GPU needs, if the cache has none, and become tritonserver.

Engines are kept in a cache that containers may share: one of them builds, the others wait for it. A variant without an
engine, on a CPU for example, starts at once. Signals reach tritonserver itself: SIGTERM lets requests under way finish.
What follows -- is given to tritonserver.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from ssd_triton.commands import runner
from ssd_triton.config import RUNTIME_NAMES, Config
from ssd_triton.serving.container.entry_point import AUTO, GPU_VARIANT, exec_server, prepare


def add_arguments(parser: argparse.ArgumentParser, config: Config) -> None:
    """Options of this command."""
    container, server = config.container, config.server
    parser.add_argument(
        "--variant",
        default=container.variant,
        help=f"of the detector; {AUTO}: {GPU_VARIANT} where there is a GPU, {config.variant} elsewhere",
    )
    parser.add_argument("--model-repository", type=Path, default=config.model_repository, help="folder")
    parser.add_argument("--engine-cache", type=Path, default=container.engine_cache, help="folder of engines")
    parser.add_argument(
        "--runtime-dir", type=Path, default=container.runtime_dir, help="folder for this container alone"
    )
    parser.add_argument(
        "--builder-timeout-s", type=float, default=container.builder_timeout_s, help="longest wait for another builder"
    )
    parser.add_argument("--runtime", choices=RUNTIME_NAMES, default=config.tensorrt.runtime, help="the builder library")
    parser.add_argument("--compute-capability", metavar="X.Y", help="of a GPU that is not here, with tensorrt-rtx")
    parser.add_argument("--build-only", action="store_true", help="fill the cache and end")
    parser.add_argument("--host", default=server.host, help="address to listen on; 0.0.0.0 for every interface")
    parser.add_argument("--grpc-port", type=int, default=server.grpc_port, help="of gRPC")
    parser.add_argument("--http-port", type=int, default=server.http_port, help="of HTTP")
    parser.add_argument("--metrics-port", type=int, default=server.metrics_port, help="of Prometheus's metrics")
    parser.add_argument("--shutdown-timeout-s", type=float, default=server.shutdown_timeout_s, help="for requests")
    parser.add_argument(
        "--cuda-memory-pool-mib",
        type=int,
        default=server.cuda_memory_pool_mib,
        help="on each GPU, for tensors between models",
    )
    parser.add_argument(
        "triton_options", nargs="*", metavar="-- OPTION", help="for tritonserver, such as --log-verbose=1"
    )


def with_arguments(config: Config, args: argparse.Namespace) -> Config:
    """The configuration that the command line asks for."""
    server = {name: getattr(args, name) for name in type(config.server).model_fields if hasattr(args, name)}
    container = {name: getattr(args, name) for name in type(config.container).model_fields}
    container |= {name: value.resolve() for name, value in container.items() if isinstance(value, Path)}
    return config.model_copy(
        update={
            "model_repository": args.model_repository.resolve(),
            "tensorrt": config.tensorrt.model_copy(update={"runtime": args.runtime}),
            "server": type(config.server).model_validate({**config.server.model_dump(), **server}),
            "container": type(config.container).model_validate(container),
        }
    )


def main() -> int:
    """Prepare, then never return unless only the cache is to be filled."""
    args, defaults = runner.parse(
        str(__doc__), "python tools/container_entrypoint.py --variant onnx_int8 -- --log-verbose=1", add_arguments
    )
    config = with_arguments(defaults, args)
    prepared = prepare(config, logging.info, compute_capability=args.compute_capability)
    if not args.build_only:
        exec_server(prepared, config, args.triton_options)
    print(f"{prepared.variant}: {prepared.repository}")
    return 0


if __name__ == "__main__":
    runner.run(main)
