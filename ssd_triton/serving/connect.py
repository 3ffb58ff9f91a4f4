"""The connection options that every client command line shares."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from ssd_triton.client.client import DetectorClient
from ssd_triton.client.errors import ServerUnreachableError
from ssd_triton.client.tls import add_tls_arguments, tls_from
from ssd_triton.config import Config
from ssd_triton.serving.repository.ensure import ensure_built_if_possible


def add_connection_arguments(parser: argparse.ArgumentParser, config: Config) -> None:
    """Add ``--url``, ``--protocol``, ``--timeout-s``, ``--in-flight``, ``--serve`` and those of TLS."""
    group = parser.add_argument_group("server")
    group.add_argument("--url", default=config.client.url, help="host:port of a running server; by default server.host")
    group.add_argument("--protocol", choices=("grpc", "http"), default=config.client.protocol, help="of that port")
    group.add_argument(
        "--timeout-s", type=float, default=config.client.timeout_s, help="deadline of a request, seconds"
    )
    group.add_argument("--in-flight", type=int, default=config.client.in_flight, help="requests under way at once")
    group.add_argument(
        "--serve",
        nargs="?",
        const=config.variant,
        metavar="VARIANT",
        help=f"start a server for this run, with this variant of the detector ({config.variant} when none is named)",
    )
    add_tls_arguments(group, config.client.tls)


@contextmanager
def connect(
    args: argparse.Namespace, config: Config, *, model: str = "ssd", retry_s: float | None = None
) -> Iterator[DetectorClient]:
    """Give a client of a ready server, which is started for the block where ``--serve`` asks for it.

    Args:
        args: With the options of :func:`add_connection_arguments`.
        config: The project's configuration.
        model: The ensemble for encoded images.
        retry_s: See :class:`DetectorClient`; a server that was started here does not come back.

    Raises:
        ServerUnreachableError: No server answers.
        ServerError: The embedded server could not be started, or has died.
    """
    with ExitStack() as stack:
        url = args.url or default_url(config, args.protocol)
        tls = None if args.serve is not None else tls_from(args)
        if args.serve is not None:
            url = stack.enter_context(_served(config, args.serve, args.protocol))
            retry_s = None
        client = stack.enter_context(
            DetectorClient(
                url,
                protocol=args.protocol,
                timeout_s=args.timeout_s,
                in_flight=args.in_flight,
                model=model,
                retry_s=retry_s,
                tls=tls,
            )
        )
        client.wait_ready(timeout_s=0)
        yield client


def default_url(config: Config, protocol: str) -> str:
    """Where ``config.yml`` has the server listen."""
    port = config.server.grpc_port if protocol == "grpc" else config.server.http_port
    return f"{config.server.host}:{port}"


@contextmanager
def _served(config: Config, variant: str, protocol: str) -> Iterator[str]:
    """Build what is missing, and serve on free ports, so that another server is in nobody's way."""
    from ssd_triton.serving.server import EmbeddedServer

    ensure_built_if_possible(config, variant, logging.info)
    logging.info("starting tritonserver with %s", variant)
    with EmbeddedServer(config.model_repository, variant, config.server.for_one_run()) as server:
        try:
            yield server.url("grpc" if protocol == "grpc" else "http")
        except ServerUnreachableError:
            server.check()
            raise
