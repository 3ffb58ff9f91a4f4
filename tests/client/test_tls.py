"""The client's TLS files."""

from __future__ import annotations

from pathlib import Path

import pytest
import tritonclient.grpc as grpc_client
import tritonclient.http as http_client

from ssd_triton.client import (
    DetectorClient,
    Tls,
    TlsError,
)

MODULES = {"grpc": grpc_client, "http": http_client}


def test_files_that_are_missing_or_no_certificates_are_named(tmp_path: Path) -> None:
    (tmp_path / "text.pem").write_text("no certificate")
    with pytest.raises(TlsError, match="both or neither"):
        Tls(certificate=tmp_path / "text.pem")
    with pytest.raises(TlsError, match=r"not found: .*nope\.pem, expected a PEM file"):
        Tls(tmp_path / "nope.pem")
    for protocol in MODULES:
        with pytest.raises(TlsError):
            DetectorClient("127.0.0.1:1", protocol=protocol, tls=Tls(tmp_path / "text.pem")).is_ready()  # type: ignore[arg-type]
