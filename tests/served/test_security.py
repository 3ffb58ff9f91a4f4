"""Who may do what with a server: loopback, keys, TLS in both protocols, and limits on requests."""

from __future__ import annotations

import secrets
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as grpc_client
import tritonclient.http as http_client
from tritonclient.utils import InferenceServerException

from ssd_triton.client import (
    AccessDeniedError,
    ClientError,
    DetectorClient,
    Tls,
    TlsError,
)
from ssd_triton.client.endpoint import ADMIN_HEADER, GRPC_ADMIN_HEADER, parse_endpoint
from ssd_triton.client.grpc_transport import open_channel
from ssd_triton.common.detections import Detections
from ssd_triton.config import Config, ServerTlsConfig
from ssd_triton.serving.server import EmbeddedServer
from ssd_triton.serving.server.protection import (
    read_admin_key,
)
from tests.conftest import assert_one_line_error
from tests.served.helpers import Gate
from tests.served.proxies import Certificates, Front

MODULES = {"grpc": grpc_client, "http": http_client}
HEADERS = {"grpc": GRPC_ADMIN_HEADER, "http": ADMIN_HEADER}
PERSON = 1
RunScript = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def key_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("key") / "admin.key"
    path.write_text(secrets.token_hex(32) + "\n")
    return path


@pytest.fixture(scope="module")
def protected(
    config: Config, light_repository: Path, certificates: Certificates, key_file: Path
) -> Iterator[EmbeddedServer]:
    """A server with model control behind a key, and mutual TLS for gRPC."""
    pair = certificates.server
    tls = ServerTlsConfig(certificate=pair.certificate, private_key=pair.private_key, client_ca=certificates.authority)
    apis = (*config.server.restricted_apis, "shared-memory")
    update = {"tls": tls, "model_control": True, "admin_key_file": key_file, "restricted_apis": apis}
    settings = config.server.for_one_run().model_copy(update=update)
    with EmbeddedServer(light_repository, "onnx_fp32", settings) as running:
        yield running


# --- Restricted APIs --------------------------------------------------------------------------------------------------


RESTRICTED = {
    "index": lambda client, headers: client.get_model_repository_index(headers=headers),
    "load": lambda client, headers: client.load_model("ssd_postprocess", headers=headers),
    "logging": lambda client, headers: client.get_log_settings(headers=headers),
    "trace": lambda client, headers: client.get_trace_settings(headers=headers),
}


@pytest.mark.parametrize("protocol", MODULES)
@pytest.mark.parametrize("call", RESTRICTED)
def test_nobody_has_a_key_by_default(light_server: EmbeddedServer, protocol: str, call: str) -> None:
    client = MODULES[protocol].InferenceServerClient(light_server.url(protocol))  # type: ignore[arg-type]
    for headers in (None, {HEADERS[protocol]: "guessed"}):
        with pytest.raises(InferenceServerException, match="is restricted, expecting header"):
            RESTRICTED[call](client, headers)


@pytest.mark.parametrize("call", RESTRICTED)
def test_a_key_opens_http(protected: EmbeddedServer, key_file: Path, call: str) -> None:
    key = read_admin_key(key_file)
    client = http_client.InferenceServerClient(protected.url("http"))
    for headers in (None, {ADMIN_HEADER: key[:-1]}):
        with pytest.raises(InferenceServerException, match="is restricted, expecting header"):
            RESTRICTED[call](client, headers)
    RESTRICTED[call](client, {ADMIN_HEADER: key})


@pytest.mark.parametrize("call", RESTRICTED)
def test_a_key_opens_grpc(protected: EmbeddedServer, certificates: Certificates, key_file: Path, call: str) -> None:
    client = open_channel(
        parse_endpoint(protected.url("grpc"), "grpc", tls=True), certificates.trusting(certificates.client)
    )
    with pytest.raises(InferenceServerException, match="is restricted, expecting header"):
        RESTRICTED[call](client, None)
    RESTRICTED[call](client, {GRPC_ADMIN_HEADER: read_admin_key(key_file)})


def test_inference_needs_no_key(protected: EmbeddedServer, photograph_rgb: np.ndarray) -> None:
    """Frames come over the connection where shared memory is closed."""
    with DetectorClient(protected.url("http"), protocol="http", timeout_s=60) as client:
        assert client._frame_pool is not None
        assert len(client.detect_frame(photograph_rgb)) > 0
        assert client._frame_pool is None


def test_a_closed_api_is_named(light_server: EmbeddedServer) -> None:
    with DetectorClient(light_server.url("http"), protocol="http", timeout_s=10) as client:
        transport = client._transport
        with pytest.raises(AccessDeniedError, match=r"server\.restricted_apis needs the key"):
            transport._call(lambda: transport._client().get_log_settings())


# --- TLS --------------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["grpc by triton", "grpc by nginx", "http by nginx", "grpc by haproxy", "http by haproxy"])
def endpoint(request: pytest.FixtureRequest) -> tuple[str, str]:
    """Everything that speaks mutual TLS: its protocol and its address."""
    protocol, by = request.param.split(" by ")
    if by == "triton":
        running: EmbeddedServer = request.getfixturevalue("protected")
        return protocol, running.url("grpc")
    front: Front = request.getfixturevalue(f"{by}_front")
    return protocol, front.urls[protocol]


def client_of(endpoint: tuple[str, str], tls: Tls | None, timeout_s: float = 60) -> DetectorClient:
    protocol, url = endpoint
    return DetectorClient(url, protocol=protocol, timeout_s=timeout_s, tls=tls)  # type: ignore[arg-type]


def test_mutual_tls(endpoint: tuple[str, str], certificates: Certificates, photograph: bytes) -> None:
    with client_of(endpoint, certificates.trusting(certificates.client)) as client:
        client.wait_ready(timeout_s=0)
        assert client.server_version().startswith("2.")
        [found] = client.map([photograph]) if endpoint[0] == "http" else client.stream([photograph])
    assert isinstance(found, Detections)
    assert found.filter(score_thresh=0.5).class_ids.tolist() == [PERSON]


@pytest.mark.parametrize("who", ["nobody", "stranger", "plain text", "distrusting"])
def test_without_trust_nothing_is_answered(
    endpoint: tuple[str, str], certificates: Certificates, photograph: bytes, who: str
) -> None:
    tls = {
        "nobody": certificates.trusting(None),
        "stranger": certificates.trusting(certificates.stranger),
        "plain text": None,
        "distrusting": Tls(None, certificates.client.certificate, certificates.client.private_key),
    }[who]
    with client_of(endpoint, tls, timeout_s=5) as client, pytest.raises(ClientError) as error:
        client.detect(photograph)
    if who == "distrusting":
        assert isinstance(error.value, TlsError)
        assert "--ssl-root-certificates" in str(error.value)


def test_another_host_is_not_trusted(endpoint: tuple[str, str], certificates: Certificates, photograph: bytes) -> None:
    """The certificate is of 127.0.0.1, and the same port answers at 127.0.0.2."""
    protocol, url = endpoint
    gate = Gate(url)
    gate.url = gate.url.replace("127.0.0.1", "127.0.0.2")
    gate.open()
    with client_of((protocol, gate.url), certificates.trusting(certificates.client), timeout_s=5) as client:
        with pytest.raises(TlsError):
            client.detect(photograph)
    gate.close()


def test_with_tls_the_plain_ports_stay_on_loopback(config: Config, certificates: Certificates) -> None:
    pair = certificates.server
    tls = ServerTlsConfig(certificate=pair.certificate, private_key=pair.private_key, client_ca=None)
    settings = config.server.for_one_run().model_copy(update={"host": "0.0.0.0", "tls": tls})  # noqa: S104
    server = EmbeddedServer(config.model_repository, "onnx_fp32", settings)
    assert server.url("grpc").startswith("0.0.0.0:")
    assert server.url("http").startswith("127.0.0.1:")
    assert server.metrics_url.startswith("http://127.0.0.1:")


def test_detect_over_tls(
    run_script: RunScript, protected: EmbeddedServer, certificates: Certificates, tmp_path: Path, photograph: bytes
) -> None:
    """And of plain TLS with the flags of the command line."""
    (tmp_path / "person.jpg").write_bytes(photograph)
    command = ("clients/detect.py", "person.jpg", "--url", protected.url("grpc"), "--output", "out")
    trusted = ("--ssl-root-certificates", certificates.authority)
    own = ("--ssl-certificate", certificates.client.certificate, "--ssl-private-key", certificates.client.private_key)
    assert run_script(*command, *trusted, *own).returncode == 0
    assert_one_line_error(run_script(*command, "--ssl", *own, "--timeout-s", 5), "no trust", "--ssl-root-certificates")
