"""TLS of a client: which servers it trusts, and its own certificate."""

from __future__ import annotations

import argparse
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ssd_triton.client.errors import TlsError
from ssd_triton.common.files import relative_to_cwd

if TYPE_CHECKING:
    from ssd_triton.config import ClientTlsConfig


@dataclass(frozen=True)
class Tls:
    """PEM files of a connection. The server's name is always checked against its certificate.

    Attributes:
        root_certificates: Authorities that sign servers' certificates; None takes those that gRPC brings, and for
            HTTP the system's.
        certificate: The client's own, with its chain, where the server asks for one (mutual TLS).
        private_key: The key of ``certificate``.

    Raises:
        TlsError: A file is missing, is no PEM file or needs a password, or one of ``certificate`` and
            ``private_key`` is missing.
    """

    root_certificates: Path | None = None
    certificate: Path | None = None
    private_key: Path | None = None

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.private_key is None):
            raise TlsError("got one of --ssl-certificate and --ssl-private-key, expected both or neither")
        for path in (self.root_certificates, self.certificate, self.private_key):
            if path is not None and not path.is_file():
                raise TlsError(f"not found: {relative_to_cwd(path)}, expected a PEM file; docs/security.md makes some")
        try:
            # gRPC would only log what is wrong with them, and then not connect.
            self.context(ssl.create_default_context)
        except OSError as error:
            raise TlsError(f"the --ssl files cannot be used ({error}): expected PEM, no password") from error

    def context(self, create: Callable[..., ssl.SSLContext]) -> ssl.SSLContext:
        """Have ``create``, which is :func:`ssl.create_default_context` or gevent's, make a context of the files."""
        context = create(cafile=self.root_certificates and str(self.root_certificates))
        if self.certificate is not None:
            # An empty password: otherwise OpenSSL would ask for one on the terminal.
            context.load_cert_chain(self.certificate, self.private_key, password="")
        return context


def add_tls_arguments(group: argparse._ArgumentGroup, config: ClientTlsConfig) -> None:
    """Add ``--ssl``, ``--ssl-root-certificates``, ``--ssl-certificate`` and ``--ssl-private-key``."""
    group.add_argument(
        "--ssl", action=argparse.BooleanOptionalAction, default=config.enabled, help="TLS; not with --serve"
    )
    group.add_argument(
        "--ssl-root-certificates",
        type=Path,
        default=config.root_certificates,
        metavar="PEM",
        help="what signs the server's certificate; None: the usual authorities",
    )
    group.add_argument("--ssl-certificate", type=Path, default=config.certificate, metavar="PEM", help="the client's")
    group.add_argument("--ssl-private-key", type=Path, default=config.private_key, metavar="PEM", help="the client's")


def tls_from(args: argparse.Namespace) -> Tls | None:
    """What the options of :func:`add_tls_arguments` ask for; one of the files is enough to ask for TLS.

    Raises:
        TlsError: A file is missing.
    """
    files = (args.ssl_root_certificates, args.ssl_certificate, args.ssl_private_key)
    return Tls(*files) if args.ssl or any(files) else None
