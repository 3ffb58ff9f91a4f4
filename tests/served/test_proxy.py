"""Two real servers: behind HAProxy with gRPC health checks, or behind gRPC's own balancing; one is taken away."""

from __future__ import annotations

import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from ssd_triton.common.errors import ServerError
from ssd_triton.common.files import ROOT
from ssd_triton.config import Config
from ssd_triton.measuring.replicas.drain import DrainReport, Way, drain_under_load, write_report
from ssd_triton.measuring.replicas.haproxy import Proxy, find_haproxy
from ssd_triton.serving.server import EmbeddedServer
from ssd_triton.serving.server.installation import find_triton
from ssd_triton.serving.server.options import server_options
from tests.conftest import free_ports, free_url, group_members


@pytest.fixture
def haproxy() -> None:
    if find_haproxy() is None:
        pytest.skip("haproxy is not installed (Debian, Ubuntu: apt install haproxy)")


@pytest.fixture
def not_ready(tmp_path: Path, config: Config) -> Iterator[str]:
    """A Triton that lives and is not ready, since a model has not loaded; the address of its gRPC."""
    artefacts = shutil.ignore_patterns("*.onnx", "*.pt", "*.plan")
    repository = tmp_path / "model_repository"
    shutil.copytree(ROOT / "model_repository/ssd_detector", repository / "ssd_detector", ignore=artefacts)
    ports = dict(zip(("grpc_port", "http_port", "metrics_port"), free_ports(), strict=True))
    settings = config.server.model_copy(update=ports)
    bundle = find_triton(tmp_path / "runtime")
    options = [*server_options(repository, "onnx_fp32", settings), *bundle.options, "--exit-on-error=false"]
    environment = {**bundle.environment, "PATH": bundle.environment.get("PATH", "/usr/bin:/bin")}
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen([bundle.binary, *options], env=environment, stdout=log, stderr=log)
    try:
        deadline_s = time.monotonic() + 60
        while not lives(settings.http_port):
            assert process.poll() is None
            assert time.monotonic() < deadline_s
            time.sleep(0.1)
        yield f"127.0.0.1:{settings.grpc_port}"
    finally:
        process.terminate()
        process.wait(30)


def lives(http_port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{http_port}/v2/health/live", timeout=1) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


@pytest.mark.usefixtures("haproxy")
def test_a_replica_that_is_not_ready_gets_no_requests(light_server: EmbeddedServer, not_ready: str) -> None:
    """Its gRPC answers, with NOT_SERVING."""
    listen = free_url()
    with (
        pytest.raises(ServerError, match=r"not healthy after 5 s: .'replica1': 'L7OK', 'replica2': '(?!L7OK)L7\w+'"),
        Proxy(listen, [light_server.url("grpc"), not_ready], startup_timeout_s=5),
    ):
        pass


def leaving(config: Config, repository: Path) -> EmbeddedServer:
    """A replica to take away."""
    return EmbeddedServer(repository, "onnx_fp32", config.server.for_one_run())


def drain(way: Way, replicas: tuple[EmbeddedServer, EmbeddedServer], image: bytes, folder: Path) -> DrainReport:
    """Take the first replica away; no request may fail, and the other must go on answering."""
    group = replicas[0].pid
    report = drain_under_load(way, replicas, image, in_flight=3, part_s=1)
    assert group_members(group) == []
    assert report.failed == {}
    assert report.answered >= sum(report.before.values())
    assert max(report.answered_at_s) > report.gone_at_s
    write_report(folder, "made up", [report])
    assert (folder / "drain.png").stat().st_size > 10_000
    return report


@pytest.mark.usefixtures("haproxy")
def test_a_drained_replica_fails_no_request(
    config: Config, light_repository: Path, light_server: EmbeddedServer, photograph: bytes, tmp_path: Path
) -> None:
    """None is even tried again."""
    with leaving(config, light_repository) as replica:
        assert drain("proxy", (replica, light_server), photograph, tmp_path).retries == 0


def test_a_stopped_replica_fails_no_request(
    config: Config, light_repository: Path, light_server: EmbeddedServer, photograph: bytes, tmp_path: Path
) -> None:
    """The client has both addresses, and tries those again that find the replica gone."""
    with leaving(config, light_repository) as replica:
        drain("client", (replica, light_server), photograph, tmp_path)
