"""TLS of a client: how it trusts the server, and how it shows who it is."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gevent.ssl
from geventhttpclient import connectionpool

from ssd_triton.client.errors import TlsError
from ssd_triton.common.files import relative_to_cwd
from ssd_triton.config import ClientTlsConfig


@dataclass(frozen=True)
class Tls:
    """PEM files of one connection; the server's name is always checked against its certificate.

    Attributes:
        root_certificates: What signs the server's certificate; None takes the roots that gRPC brings, and for HTTP the
            system's.
        certificate: The client's own, with its chain, where the server asks for one (mutual TLS).
        private_key: Of the client's certificate.
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
            self._context(ssl.create_default_context)
        except OSError as error:
            raise TlsError(f"the --ssl files cannot be used ({error}): expected PEM, no password") from error

    @classmethod
    def configured(cls, config: ClientTlsConfig) -> Tls | None:
        """What the configuration asks for; one of the files is enough to ask for TLS.

        Raises:
            TlsError: A file is missing.
        """
        files = (config.root_certificates, config.certificate, config.private_key)
        return cls(*files) if config.enabled or any(files) else None

    def grpc_arguments(self) -> dict[str, Any]:
        """Of tritonclient's gRPC client."""
        return {
            "ssl": True,
            "root_certificates": _text(self.root_certificates),
            "certificate_chain": _text(self.certificate),
            "private_key": _text(self.private_key),
        }

    def http_arguments(self) -> dict[str, Any]:
        """Of tritonclient's HTTP client.

        Raises:
            TlsError: Its HTTP library has no TLS with this Python.
        """
        if not hasattr(connectionpool, "SSLConnectionPool"):
            raise TlsError("tritonclient's HTTP library has TLS up to Python 3.11 only: use --protocol grpc")
        context = self._context(gevent.ssl.create_default_context)
        return {"ssl": True, "ssl_context_factory": lambda: context}

    def _context(self, create: Callable[..., ssl.SSLContext]) -> ssl.SSLContext:
        context = create(cafile=_text(self.root_certificates))
        if self.certificate is not None:
            # An empty password: otherwise OpenSSL would ask for one on the terminal.
            context.load_cert_chain(self.certificate, self.private_key, password="")
        return context


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
