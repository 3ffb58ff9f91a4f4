"""Fixtures: real servers for the whole run, their clients, and what the default server finds in real drives."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from ssd_triton.client import DetectorClient
from ssd_triton.common.detections import Detections
from ssd_triton.common.in_flight import submit_ahead
from ssd_triton.config import Config
from ssd_triton.media.video import open_source
from ssd_triton.serving.repository.build import ensure_built
from ssd_triton.serving.server import EmbeddedServer
from tests.light import write_light_repository
from tests.served.proxies import Certificates, Front, haproxy, nginx, seconds_until_cut_off

OWN_SERVERS = {
    "test_attack",
    "test_container",
    "test_exposure",
    "test_exposure_limits",
    "test_faults",
    "test_leftovers",
    "test_liveness",
    "test_own_classes",
    "test_proxy",
    "test_security",
    "test_server",
    "test_soak",
    "test_supervision",
    "test_sweep",
    "test_variants",
}
"""Modules that start servers of their own, most of them to end them, or servers behind proxies."""


def pytest_itemcollected(item: pytest.Item) -> None:
    """With several processes, the tests of this folder run in two of them: each has its session's servers once."""
    item.add_marker(pytest.mark.xdist_group("own servers" if item.path.stem in OWN_SERVERS else "shared servers"))


@pytest.fixture(scope="session")
def server(config: Config) -> Iterator[EmbeddedServer]:
    """The model repository as it is committed, with its artefacts, on free ports; in FP32, as the reference is."""
    ensure_built(config, lambda line: None, only=["onnx_fp32"])
    settings = config.server.for_one_run()
    with EmbeddedServer(config.model_repository, "onnx_fp32", settings) as running:
        yield running


@pytest.fixture(scope="session")
def light_repository(config: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model repository with a detector that costs next to nothing: its ``onnx_fp32`` is that of ``light.py``."""
    ensure_built(config, lambda line: None, only=["onnx_fp32"])
    return write_light_repository(config.model_repository, tmp_path_factory.mktemp("light") / "model_repository")


@pytest.fixture(scope="session")
def light_server(config: Config, light_repository: Path) -> Iterator[EmbeddedServer]:
    """For tests of what is around the detector: requests, images, interruptions, loads that are no overload."""
    with EmbeddedServer(light_repository, "onnx_fp32", config.server.for_one_run()) as running:
        yield running


@pytest.fixture(scope="session")
def exposed_server(config: Config, light_repository: Path) -> Iterator[EmbeddedServer]:
    """The same as strangers may reach it, behind a proxy: the light detector, and `ssd` alone."""
    settings = config.server.for_one_run().model_copy(update={"expose": True})
    with EmbeddedServer(light_repository, "onnx_fp32", settings) as running:
        yield running


@pytest.fixture
def own_tmp(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for temporary files that no other server uses."""
    folder = tmp_path_factory.mktemp("tmp")
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates.made(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="session")
def nginx_front(
    exposed_server: EmbeddedServer, certificates: Certificates, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Front]:
    with nginx(exposed_server, certificates, tmp_path_factory.mktemp("nginx")) as front:
        yield front


@pytest.fixture(scope="session")
def haproxy_front(
    exposed_server: EmbeddedServer, certificates: Certificates, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Front]:
    with haproxy(exposed_server, certificates, tmp_path_factory.mktemp("haproxy")) as front:
        yield front


@pytest.fixture(scope="session", params=["nginx", "haproxy"])
def front(request: pytest.FixtureRequest) -> Front:
    """Either proxy."""
    running: Front = request.getfixturevalue(f"{request.param}_front")
    return running


@pytest.fixture(scope="session")
def slow_clients(front: Front) -> Iterator[Future[dict[str, float]]]:
    """Slow clients of a proxy, beside the other tests: they are cut off after ten seconds."""
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(seconds_until_cut_off, front)


@pytest.fixture(scope="session")
def default_server(config: Config) -> Iterator[EmbeddedServer]:
    """The variant that ships as the default."""
    ensure_built(config, lambda line: None, only=[config.variant])
    with EmbeddedServer(config.model_repository, config.variant, config.server.for_one_run()) as running:
        yield running


@pytest.fixture(scope="session")
def grpc_detector(server: EmbeddedServer) -> Iterator[DetectorClient]:
    with DetectorClient(server.url("grpc"), protocol="grpc", timeout_s=60) as client:
        client.wait_ready(timeout_s=10)
        yield client


@pytest.fixture(scope="session")
def http_detector(server: EmbeddedServer) -> Iterator[DetectorClient]:
    with DetectorClient(server.url("http"), protocol="http", timeout_s=60) as client:
        client.wait_ready(timeout_s=10)
        yield client


@pytest.fixture(scope="session")
def light_grpc_detector(light_server: EmbeddedServer) -> Iterator[DetectorClient]:
    with DetectorClient(light_server.url("grpc"), protocol="grpc", timeout_s=60) as client:
        yield client


@pytest.fixture(scope="session")
def light_http_detector(light_server: EmbeddedServer) -> Iterator[DetectorClient]:
    with DetectorClient(light_server.url("http"), protocol="http", timeout_s=60) as client:
        yield client


@pytest.fixture(scope="session", params=["grpc", "http"])
def light_detector(request: pytest.FixtureRequest) -> DetectorClient:
    """A client of either protocol."""
    client: DetectorClient = request.getfixturevalue(f"light_{request.param}_detector")
    return client


@pytest.fixture(scope="session", params=["grpc", "http"])
def detector(request: pytest.FixtureRequest) -> DetectorClient:
    """A client of either protocol."""
    client: DetectorClient = request.getfixturevalue(f"{request.param}_detector")
    return client


@dataclass(frozen=True)
class DetectedDrive:
    """A real drive and what the server finds in it, of all scores and classes.

    Attributes:
        path: The clip, or the folder of its images.
        times_s: Of the frames.
        detections: Of the frames.
    """

    path: Path
    times_s: list[float]
    detections: list[Detections]


@pytest.fixture(scope="session")
def detected_drive(request: pytest.FixtureRequest, data: Callable[[str], Path]) -> Callable[[str], DetectedDrive]:
    """Detect in a clip or a folder of images of the optional data, by the default variant, once for all tests."""

    @cache
    def detect(relative: str) -> DetectedDrive:
        path = data(relative)
        default_server: EmbeddedServer = request.getfixturevalue("default_server")
        with (
            DetectorClient(default_server.url("grpc"), timeout_s=60) as client,
            open_source(str(path), image_folder_fps=10) as source,
        ):
            submitted = submit_ahead(source, lambda frame: client.submit_frame(frame.image_rgb), client.in_flight)
            answers = [(frame.time_s, future.result()) for frame, future in submitted]
        return DetectedDrive(path, [time_s for time_s, _ in answers], [found for _, found in answers])

    return detect
