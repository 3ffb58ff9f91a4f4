"""Triton's options for access control of an embedded server: TLS, restricted APIs, model control."""

from __future__ import annotations

import re
import secrets
from pathlib import Path

from ssd_triton.client.endpoint import ADMIN_HEADER, is_loopback
from ssd_triton.common.errors import ConfigError
from ssd_triton.common.files import relative_to_cwd
from ssd_triton.common.model_names import ENSEMBLE
from ssd_triton.config import ServerConfig

_KEY = re.compile(r"[A-Za-z0-9_-]{32,}")


def read_admin_key(path: Path) -> str:
    """Read the key of the restricted APIs.

    Raises:
        ConfigError: The file does not exist, or holds no valid key.
    """
    name = relative_to_cwd(path)
    try:
        key = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"cannot read the admin key {name} ({error}): make one with 'openssl rand -hex 32'"
        ) from error
    if not _KEY.fullmatch(key):
        raise ConfigError(
            f"{name}: got {len(key)} characters, expected 32 or more letters, digits, - or _: make a key with "
            "'openssl rand -hex 32'"
        )
    return key


def protection_options(config: ServerConfig) -> list[str]:
    """Return the command-line options of ``tritonserver``.

    An exposed server loads only the ensemble for encoded images with its members, so that no model has open dimensions.
    Loading single models requires Triton's explicit model control, in which its repository API could load more; a
    random key that nobody knows closes that API.

    Without an admin key, the other restricted APIs are closed by a random key as well. Triton takes keys only as
    arguments: users of the same machine can see them in the list of processes.

    Raises:
        ConfigError: The admin key or a file of the TLS settings cannot be read.
    """
    unknown_key = secrets.token_hex(32)
    key = unknown_key if config.admin_key_file is None else read_admin_key(config.admin_key_file)
    models = [ENSEMBLE] if config.expose else ["*"] if config.model_control else []
    options = ["--model-control-mode", "explicit" if models else "none"]
    options += [option for model in models for option in ("--load-model", model)]
    closed: set[str] = {"model-repository", "shared-memory"} if config.expose else set()
    with_key: set[str] = set(config.restricted_apis)
    if not is_loopback(config.host):
        # This API maps any shared memory that the server can open: useful to attackers, but not to remote clients.
        with_key.add("shared-memory")
    with_key -= closed
    for apis, value in ((closed, unknown_key), (with_key, key)):
        if apis:
            restricted = f"{','.join(sorted(apis))}:{ADMIN_HEADER}={value}"
            options += [f"--http-restricted-api={restricted}", f"--grpc-restricted-protocol={restricted}"]
    return options + _tls_options(config)


def plain_text_host(config: ServerConfig) -> str:
    """Return the address for HTTP and metrics, for which Triton has no TLS: with TLS they stay on loopback."""
    return config.host if config.tls.certificate is None else "127.0.0.1"


def exposure_warning(config: ServerConfig) -> str | None:
    """Return a warning for the owner of a server that other machines can reach; None if none can."""
    if is_loopback(config.host):
        return None
    warnings = []
    if config.tls.client_ca is None:
        text = "the traffic is plain text" if config.tls.certificate is None else "server.tls.client_ca restricts that"
        warnings.append(f"whoever reaches it may use it, {text}")
    if not config.expose:
        warnings.append(
            "it loads the models of raw frames too, by which a client can end it: --expose loads 'ssd' alone"
        )
    return f"{config.host}: {'; '.join(warnings)}; see docs/security.md" if warnings else None


def _tls_options(config: ServerConfig) -> list[str]:
    tls = config.tls
    if tls.certificate is None or tls.private_key is None:
        return []
    for path in (tls.certificate, tls.private_key, tls.client_ca):
        if path is not None and not path.is_file():
            raise ConfigError(f"server.tls: not found: {relative_to_cwd(path)}; docs/security.md makes certificates")
    options = ["--grpc-use-ssl=true", f"--grpc-server-cert={tls.certificate}", f"--grpc-server-key={tls.private_key}"]
    if tls.client_ca is not None:
        options += ["--grpc-use-ssl-mutual=true", f"--grpc-root-cert={tls.client_ca}"]
    return options
