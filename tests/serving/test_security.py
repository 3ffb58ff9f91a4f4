"""What protects a server, as far as its options say: keys, TLS, closed APIs."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import tritonclient.grpc as grpc_client
import tritonclient.http as http_client

from ssd_triton.config import Config, ServerTlsConfig
from ssd_triton.serving.server.protection import (
    exposure_warning,
    protection_options,
)
from tests.conftest import assert_one_line_error, assert_wrong_usage

MODULES = {"grpc": grpc_client, "http": http_client}
RunScript = Callable[..., "subprocess.CompletedProcess[str]"]


# --- Restricted APIs --------------------------------------------------------------------------------------------------


def test_the_key_is_another_at_each_start(config: Config) -> None:
    settings = config.server.for_one_run()
    assert protection_options(settings) != protection_options(settings)


def test_models_stay_as_they_were_loaded_by_default(config: Config) -> None:
    assert protection_options(config.server)[:2] == ["--model-control-mode", "none"]


def test_shared_memory_is_closed_to_the_network(config: Config) -> None:
    settings = config.server.for_one_run().model_copy(update={"host": "0.0.0.0"})  # noqa: S104
    assert sum("shared-memory" in option for option in protection_options(settings)) == len(MODULES)
    assert "plain text" in str(exposure_warning(settings))


def test_model_control_needs_a_key(run_script: RunScript) -> None:
    assert_wrong_usage(run_script("tools/serve.py", "--model-control"), "code of theirs", "openssl rand -hex 32")


@pytest.mark.parametrize(("content", "words"), [(None, "cannot read the admin key"), ("short", "got 5 characters")])
def test_a_bad_key_is_named(run_script: RunScript, tmp_path: Path, content: str | None, words: str) -> None:
    if content is not None:
        (tmp_path / "admin.key").write_text(content)
    ports = ("--grpc-port=0", "--http-port=0", "--metrics-port=0")
    result = run_script("tools/serve.py", "--no-build", *ports, "--admin-key-file=admin.key")
    assert_one_line_error(result, words, "openssl rand -hex 32")


# --- TLS --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tls", [{"certificate": "a.pem"}, {"client_ca": "a.pem"}])
def test_half_of_a_tls_configuration_is_refused(tls: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="private_key"):
        ServerTlsConfig.model_validate({"certificate": None, "private_key": None, "client_ca": None, **tls})
