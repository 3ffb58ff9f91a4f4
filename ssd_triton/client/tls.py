"""TLS settings of a client: which servers it trusts, and its own certificate."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ssd_triton.client.errors import TlsError
from ssd_triton.common.files import relative_to_cwd


@dataclass(frozen=True)
class Tls:
    """PEM files of a connection. The server's name is always checked against its certificate.

    Attributes:
        root_certificates: Certificate authorities that the client trusts; None takes those shipped with gRPC, and the
            system's for HTTP.
        certificate: The client's own certificate with its chain, for a server that requires one (mutual TLS).
        private_key: The key of ``certificate``.

    Raises:
        TlsError: A file is missing, is not a PEM file or needs a password, or only one of ``certificate`` and
            ``private_key`` is given.
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
            # Checked here, since gRPC would only log what is wrong with the files, and then fail to connect.
            self.context(ssl.create_default_context)
        except OSError as error:
            raise TlsError(f"the --ssl files cannot be used ({error}): expected PEM, no password") from error

    def context(self, create: Callable[..., ssl.SSLContext]) -> ssl.SSLContext:
        """Return an SSL context with these files.

        Args:
            create: :func:`ssl.create_default_context`, or gevent's function of the same name.
        """
        context = create(cafile=self.root_certificates and str(self.root_certificates))
        if self.certificate is not None:
            # An empty password: otherwise OpenSSL would ask for one on the terminal.
            context.load_cert_chain(self.certificate, self.private_key, password="")
        return context
