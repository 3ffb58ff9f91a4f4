"""Runs the page: address, TLS and token, the connections to the server, and the browser."""

from __future__ import annotations

import logging
import os
import re
import secrets
import socket
import ssl
import webbrowser
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import NamedTuple

import uvicorn
from starlette.applications import Starlette

from ssd_triton.client.client import DetectorClient
from ssd_triton.client.endpoint import host_port, is_loopback
from ssd_triton.client.tls import Tls
from ssd_triton.client.transport import make_transport
from ssd_triton.common.errors import ConfigError
from ssd_triton.common.files import relative_to_cwd
from ssd_triton.common.labels import load_labels
from ssd_triton.config import Config, ViewConfig
from ssd_triton.serving.connect import configured_tls, default_metrics_url, default_url
from ssd_triton.serving.server.ports import bound_socket
from ssd_triton.viewing.app import make_app
from ssd_triton.viewing.background_server import BackgroundServer
from ssd_triton.viewing.drives import Drives
from ssd_triton.viewing.guard import LOOPBACK_NAMES, Guard
from ssd_triton.viewing.monitor import Monitor
from ssd_triton.viewing.pictures import Pictures

_TOKEN = re.compile(r"[A-Za-z0-9_-]{32,}")
_STATUS_TIMEOUT_S = 5.0
_LARGEST_COMMAND_BYTES = 4096
"""Largest message that a browser may send over the WebSocket."""
_CONNECTIONS = 500
"""Most connections at once; further ones are refused with 503."""
_END_S = 2
"""Time for answers to finish at the end."""


def run_page(
    config: Config, *, serve: str | None, metrics_url: str | None, report_ready: Callable[[str], None]
) -> None:
    """Serve the page until Ctrl-C.

    Args:
        config: The configuration in force.
        serve: Variant of the detector for a server that is started for the page; None uses a running server, which may
            be away for a while.
        metrics_url: Address of the server's metrics; None derives it from the server's address.
        report_ready: Called with the page's address, including its token, once the page answers.

    Raises:
        ConfigError: The page would be reachable from other machines without TLS, or a TLS file cannot be used.
        ServerError: The port is taken, or the embedded server could not be started.
        UserError: The models could not be built.
    """
    settings = config.view
    token, tls = _token(settings), _checked_tls(settings)
    with ExitStack() as stack:
        listener = stack.enter_context(closing(bound_socket(settings.host, settings.port, "--port")))
        port: int = listener.getsockname()[1]
        own_server = None if serve is None else stack.enter_context(BackgroundServer(config, serve))
        if own_server is None:
            served = _Served(default_url(config), metrics_url or default_metrics_url(config), configured_tls(config))
        else:
            server = own_server.server
            served = _Served(server.url(config.client.protocol), server.metrics_url, None)
        app = _app(config, served, stack, starts=own_server is not None)
        scheme = "http" if tls is None else "https"
        hosts = LOOPBACK_NAMES | {host_name(settings.host)} if is_loopback(settings.host) else None
        guard = Guard(app, scheme=scheme, hosts=hosts, token=token, port=port)
        url = f"{scheme}://{host_port(settings.host, port)}/"
        page = _page(guard, tls, lambda: report_ready(f"{url}?token={token}" if token else url))
        if own_server is not None:
            own_server.call_on_failure(page.end)
        page.run(sockets=[listener])
        if own_server is not None and own_server.failure is not None:
            raise own_server.failure


def open_browser(address: str) -> None:
    """Open the page in a browser, if there is a screen."""
    if os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
        webbrowser.open(address)


def host_name(host: str) -> str:
    """Return a host as browsers write it in ``Host``."""
    return f"[{host}]" if ":" in host else host.lower()


def _token(settings: ViewConfig) -> str | None:
    """Return the token that browsers need; None on loopback, unless a token file is configured.

    Raises:
        ConfigError: The file holds no token.
    """
    if settings.token_file is None:
        return None if is_loopback(settings.host) else secrets.token_urlsafe(32)
    name = relative_to_cwd(settings.token_file)
    try:
        token = settings.token_file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the token {name} ({error}): make one with 'openssl rand -hex 32'") from error
    if not _TOKEN.fullmatch(token):
        raise ConfigError(
            f"{name}: got {len(token)} characters, expected 32 or more letters, digits, - or _: make a token with "
            "'openssl rand -hex 32'"
        )
    return token


def _checked_tls(settings: ViewConfig) -> tuple[Path, Path] | None:
    """Return certificate and key of the page; None without TLS.

    Raises:
        ConfigError: They cannot be used, or are missing beyond loopback.
    """
    if settings.certificate is None or settings.private_key is None:
        if is_loopback(settings.host):
            return None
        raise ConfigError(
            f"got --host {settings.host} without TLS, expected --page-certificate and --page-private-key for a page "
            "that other machines reach: docs/security.md makes them"
        )
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(settings.certificate, settings.private_key)
    except OSError as error:  # ssl.SSLError is one
        name = relative_to_cwd(settings.certificate)
        step = "docs/security.md makes certificates"
        raise ConfigError(f"cannot use the certificate {name} with its key ({error}): {step}") from error
    return settings.certificate, settings.private_key


class _Served(NamedTuple):
    """Addresses and TLS settings of the Triton server."""

    url: str
    metrics_url: str | None
    tls: Tls | None


def _app(config: Config, served: _Served, stack: ExitStack, *, starts: bool) -> Starlette:
    """Make the page's application, with connections to the server that ``stack`` closes."""
    protocol, labels = config.client.protocol, load_labels(config.labels_path)

    def client(retry_s: float | None) -> DetectorClient:
        settings = config.client
        return stack.enter_context(
            DetectorClient(
                served.url,
                protocol=protocol,
                timeout_s=settings.timeout_s,
                in_flight=settings.in_flight,
                retry_s=retry_s,
                tls=served.tls,
            )
        )

    # Drives wait for a server that comes back, as the demo does; for pictures the error is shown at once.
    for_pictures = client(None)
    after_client = stack.enter_context(ExitStack())
    for_drives = client(config.demo.server_deadline_s)
    transport = stack.enter_context(closing(make_transport(protocol, served.url, _STATUS_TIMEOUT_S, tls=served.tls)))
    drives = Drives(config, labels, for_drives)
    after_client.callback(drives.join)
    return make_app(
        Pictures(for_pictures, transport, labels),
        drives,
        Monitor(transport, served.url, served.metrics_url, starts=starts),
        score_thresh=config.detect.score_thresh,
        labels=labels,
    )


class _Server(uvicorn.Server):
    """A uvicorn server that reports when it is ready."""

    def __init__(self, config: uvicorn.Config, report: Callable[[], None]) -> None:
        super().__init__(config)
        self._report = report

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._report()

    def end(self) -> None:
        """Ask :meth:`run` to return soon; may be called from any thread."""
        self.should_exit = True


def _page(app: Guard, tls: tuple[Path, Path] | None, report: Callable[[], None]) -> _Server:
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    options = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,  # it would show the token
        server_header=False,
        limit_concurrency=_CONNECTIONS,
        ws_max_size=_LARGEST_COMMAND_BYTES,
        ws_per_message_deflate=False,
        timeout_graceful_shutdown=_END_S,
        ssl_certfile=None if tls is None else tls[0],
        ssl_keyfile=None if tls is None else tls[1],
    )
    return _Server(options, report)
