"""Connects a client to the server that the configuration names, or to one that is started for it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from ssd_triton.client.client import DetectorClient
from ssd_triton.client.endpoint import host_port, parse_endpoint
from ssd_triton.client.errors import ServerUnreachableError
from ssd_triton.client.tls import Tls
from ssd_triton.config import Config
from ssd_triton.serving.repository.ensure import ensure_built_if_possible

if TYPE_CHECKING:
    from ssd_triton.serving.server import EmbeddedServer


@contextmanager
def connect(
    config: Config,
    *,
    serve: str | None = None,
    model: str = "ssd",
    in_flight: int | None = None,
    retry_s: float | None = None,
) -> Iterator[DetectorClient]:
    """Give a client of a ready server.

    Args:
        config: The configuration, whose section ``client`` says how to reach the server.
        serve: Variant of the detector for a server that is started for the block; None uses a running server.
        model: The ensemble for encoded images.
        in_flight: Requests in flight at once; None takes ``client.in_flight``.
        retry_s: See :class:`DetectorClient`; ignored for a server that is started here, which is never restarted.

    Raises:
        ServerUnreachableError: No server answers.
        ServerError: The embedded server could not be started, or has died.
    """
    settings = config.client
    with ExitStack() as stack:
        server = None if serve is None else stack.enter_context(serve_for_one_run(config, serve))
        url = default_url(config) if server is None else server.url(settings.protocol)
        client = stack.enter_context(
            DetectorClient(
                url,
                protocol=settings.protocol,
                timeout_s=settings.timeout_s,
                in_flight=in_flight or settings.in_flight,
                model=model,
                retry_s=retry_s if server is None else None,
                tls=configured_tls(config) if server is None else None,
            )
        )
        client.wait_ready(timeout_s=0)
        try:
            yield client
        except ServerUnreachableError:
            if server is not None:
                server.check()
            raise


def configured_tls(config: Config) -> Tls | None:
    """Return the TLS settings of ``client.tls``, None without TLS; naming one of its files is enough to switch it on.

    Raises:
        TlsError: A file is missing or unusable.
    """
    tls = config.client.tls
    files = (tls.root_certificates, tls.certificate, tls.private_key)
    return Tls(*files) if tls.enabled or any(files) else None


def default_url(config: Config) -> str:
    """Return ``client.url``, or else the address on which a server of this configuration listens."""
    port = config.server.grpc_port if config.client.protocol == "grpc" else config.server.http_port
    return config.client.url or host_port(config.server.host, port)


def default_metrics_url(config: Config) -> str | None:
    """Return the expected address of the metrics of the server at :func:`default_url`; None for several replicas."""
    tls = configured_tls(config)
    hosts = parse_endpoint(default_url(config), config.client.protocol, tls=tls is not None).hosts
    return f"http://{host_port(hosts[0], config.server.metrics_port)}/metrics" if hosts else None


@contextmanager
def serve_for_one_run(config: Config, variant: str) -> Iterator[EmbeddedServer]:
    """Build what is missing, and serve a variant on free ports, which cannot clash with another server.

    Raises:
        ServerError: The server could not be started, or has died.
    """
    from ssd_triton.serving.server import EmbeddedServer

    ensure_built_if_possible(config, variant, logging.info)
    logging.info("starting tritonserver with %s", variant)
    with EmbeddedServer(config.model_repository, variant, config.server.for_one_run()) as server:
        yield server
