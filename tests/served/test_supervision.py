"""Servers that die come back, leave nothing behind, and keep their log and descriptors within bounds."""

from __future__ import annotations

import contextlib
import json
import os
import random
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import tritonclient.grpc as grpc_client
from tritonclient.grpc import service_pb2
from tritonclient.utils import InferenceServerException

from ssd_triton.client import DetectorClient
from ssd_triton.client.endpoint import parse_endpoint
from ssd_triton.client.grpc_transport import open_channel
from ssd_triton.common.arrays import UInt8Array
from ssd_triton.common.errors import ServerError
from ssd_triton.common.files import ROOT
from ssd_triton.config import Config
from ssd_triton.serving.server import EmbeddedServer, leftovers, log
from ssd_triton.serving.server.backend_processes import backend_processes
from ssd_triton.serving.server.leftovers import RuntimeDir, sweep
from ssd_triton.serving.server.log import ServerLog
from tests.conftest import free_ports, group_members
from tests.served.helpers import assert_equal

BACK_S = 30.0
"""Longest absence of a server that has died, on a machine that is busy with other tests; alone it takes 2 s."""
WRAPPING_SHAPE = [1, 2**32, 2**32, 3]
"""The number of elements wraps to 0 in 64 bits, so that an empty tensor fits."""


@dataclass
class Serving:
    """``ssd-triton serve`` with the light detector."""

    process: subprocess.Popen[str]
    ports: list[int]
    log: Path

    @property
    def grpc(self) -> str:
        return f"127.0.0.1:{self.ports[0]}"

    @property
    def http(self) -> str:
        return f"127.0.0.1:{self.ports[1]}"

    @property
    def server_pid(self) -> int:
        [child] = psutil.Process(self.process.pid).children()
        return child.pid

    def end(self) -> str:
        """End it, and return what it reported."""
        self.process.terminate()
        _, errors = self.process.communicate(timeout=30)
        assert self.process.returncode == 0, errors
        return errors


def start(folder: Path, repository: Path, *options: str, ready: bool = True) -> Serving:
    ports = free_ports()
    flags = [f"--{name}-port={port}" for name, port in zip(("grpc", "http", "metrics"), ports, strict=True)]
    models = ["--model-repository", str(repository), "--variant", "onnx_fp32", "--no-build"]
    quick = ["--set", "server.shutdown_timeout_s=3"]
    command = [sys.executable, str(ROOT / "tools/serve.py"), *models, *flags, *quick, *options]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if ready:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("ready:"), process.communicate()
    return Serving(process, ports, folder / "reports/tritonserver.log")


@contextlib.contextmanager
def serving(folder: Path, repository: Path, *options: str) -> Iterator[Serving]:
    running = start(folder, repository, *options)
    try:
        yield running
    finally:
        running.process.terminate()
        running.process.communicate(timeout=30)


# --- Coming back ------------------------------------------------------------------------------------------------------


@dataclass
class Traffic:
    """Steady good requests of both protocols and both ensembles, each of which must be answered right."""

    answers: int = 0
    longest_s: float = 0.0

    def __post_init__(self) -> None:
        self.problems: list[str] = []
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []

    def add(self, client: DetectorClient, ask: Callable[[DetectorClient], object]) -> None:
        self._threads.append(threading.Thread(target=self._run, args=(client, ask)))
        self._threads[-1].start()

    def end(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, client: DetectorClient, ask: Callable[[DetectorClient], object]) -> None:
        expected = ask(client)
        while not self._stop.is_set():
            start_s = time.monotonic()
            try:
                assert_equal(ask(client), expected)  # type: ignore[arg-type]
                self.answers += 1
            except Exception as error:  # whatever it is, the test looks for it
                self.problems.append(repr(error))
            self.longest_s = max(self.longest_s, time.monotonic() - start_s)
            time.sleep(0.02)


def test_clients_outlive_deaths_of_the_server_and_of_a_backend_process(
    light_repository: Path, tmp_path: Path, photograph: bytes, photograph_rgb: UInt8Array
) -> None:
    traffic = Traffic()
    with serving(tmp_path, light_repository) as running, contextlib.ExitStack() as clients:
        for protocol, url in (("grpc", running.grpc), ("http", running.http)):
            for ask in (lambda client: client.detect(photograph), lambda client: client.detect_frame(photograph_rgb)):
                client = DetectorClient(url, protocol=protocol, timeout_s=30, retry_s=60)  # type: ignore[arg-type]
                clients.callback(client.close)
                traffic.add(client, ask)
        clients.callback(traffic.end)
        kills: list[Callable[[], object]] = [
            lambda: os.kill(running.server_pid, signal.SIGKILL),
            lambda: backend_processes(running.server_pid)["ssd_preprocess_0_0"].kill(),  # noqa: PLW0108 - looked up anew
        ]
        for kill in kills:
            time.sleep(1)
            before, pid = traffic.answers, running.server_pid
            kill()
            wait_until(lambda pid=pid, before=before: changed(running, pid) and traffic.answers > before + 8)
        traffic.end()
        errors = running.end()
    assert traffic.problems == []
    assert traffic.longest_s < BACK_S
    assert "tritonserver was killed by SIGKILL" in errors
    assert "the process of ssd_preprocess_0_0 has died" in errors
    assert errors.count("tritonserver is back after") == 2
    noted = [line for line in running.log.read_text(errors="replace").splitlines() if line.startswith("ssd-triton")]
    assert [line.split(": ", 1)[1].split(",")[0] for line in noted if "starting" in line] == [
        "starting tritonserver"
    ] * 3
    assert any("was killed by SIGKILL" in line for line in noted)


def changed(running: Serving, pid: int) -> bool:
    children = psutil.Process(running.process.pid).children()
    return len(children) == 1 and children[0].pid != pid and children[0].name() == "tritonserver"


def wait_until(condition: Callable[[], bool], timeout_s: float = 30) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.05)


def test_a_server_that_keeps_dying_ends_with_the_reason(light_repository: Path, tmp_path: Path) -> None:
    with serving(tmp_path, light_repository, "--max-restarts", "1") as running:
        first = running.server_pid
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: changed(running, first))
        os.kill(running.server_pid, signal.SIGKILL)
        _, errors = running.process.communicate(timeout=30)
        assert running.process.returncode == 1
        last = errors.splitlines()[-1]
        assert "was killed by SIGKILL" in last
        assert "not restarted: 2 deaths in 10 minutes, server.max_restarts: 1" in last


def send_wrapping_shape_over_http(url: str) -> bytes:
    tensor = {"name": "FRAME", "shape": WRAPPING_SHAPE, "datatype": "UINT8", "data": []}
    body = json.dumps({"inputs": [tensor]}).encode()
    headers = {"Inference-Header-Content-Length": str(len(body))}
    request = urllib.request.Request(f"http://{url}/v2/models/ssd_frames/infer", body, headers)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:  # noqa: S310 - http
            return bytes(answer.read())
    except urllib.error.HTTPError as error:
        return error.read()
    except OSError as error:
        return str(error).encode()


def send_wrapping_shape_over_grpc(url: str) -> bytes:
    request = service_pb2.ModelInferRequest(model_name="ssd_frames", raw_input_contents=[b""])
    request.inputs.add(name="FRAME", datatype="UINT8", shape=WRAPPING_SHAPE)
    with contextlib.closing(open_channel(parse_endpoint(url, "grpc"), None)) as client:
        try:
            return bytes(client._client_stub.ModelInfer(request, timeout=20).SerializeToString())
        except Exception as error:  # whatever gRPC says is the answer
            return str(error).encode()


SENDERS = {"grpc": send_wrapping_shape_over_grpc, "http": send_wrapping_shape_over_http}


def test_an_exposed_server_has_no_model_for_a_shape_that_wraps(
    config: Config, light_repository: Path, photograph: bytes, photograph_rgb: UInt8Array, light_server: EmbeddedServer
) -> None:
    exposed = config.server.for_one_run().model_copy(update={"expose": True})
    with EmbeddedServer(light_repository, "onnx_fp32", exposed) as server:
        for protocol, send in SENDERS.items():
            answer = send(server.url(protocol))  # type: ignore[arg-type]
            assert b"unknown model" in answer or b"not found" in answer, answer
        server.check()
        with open_channel_of(server) as client:
            with pytest.raises(InferenceServerException, match="is restricted"):
                client.load_model("ssd_frames")
            with pytest.raises(InferenceServerException, match="is restricted"):
                client.get_system_shared_memory_status()
        with DetectorClient(server.url("grpc"), timeout_s=30) as client:
            client.wait_ready(timeout_s=0)
            assert len(client.detect(photograph)) > 0
            # The same pixels, as a file.
            with DetectorClient(light_server.url("grpc"), timeout_s=30) as reference:
                expected = reference.detect_frame(photograph_rgb)
            for _ in range(2):
                assert_equal(client.detect_frame(photograph_rgb), expected)


def open_channel_of(server: EmbeddedServer) -> contextlib.closing[grpc_client.InferenceServerClient]:
    return contextlib.closing(open_channel(parse_endpoint(server.url("grpc"), "grpc"), None))


@pytest.mark.parametrize("protocol", SENDERS)
def test_a_full_server_comes_back_from_a_shape_that_wraps(
    light_repository: Path, tmp_path: Path, photograph: bytes, protocol: str
) -> None:
    with serving(tmp_path, light_repository) as running:
        SENDERS[protocol](running.grpc if protocol == "grpc" else running.http)
        start_s = time.monotonic()
        with DetectorClient(running.grpc, timeout_s=30, retry_s=60) as client:
            assert len(client.detect(photograph)) > 0
        assert time.monotonic() - start_s < BACK_S


# --- Leftovers --------------------------------------------------------------------------------------------------------


@pytest.fixture
def own_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for temporary files that no other server uses."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_serve_killed_at_any_moment_leaves_nothing(light_repository: Path, tmp_path: Path, own_tmp: Path) -> None:
    random_s = random.Random(0)
    for moment_s in (0.4, *(random_s.uniform(0.5, 4.0) for _ in range(4))):
        running = start(tmp_path, light_repository, ready=False)
        time.sleep(moment_s)
        processes = psutil.Process(running.process.pid).children(recursive=True)
        running.process.kill()
        running.process.communicate()
        _, alive = psutil.wait_procs(processes, timeout=3)
        assert alive == []
    names = [folder.name for folder in own_tmp.glob("ssd-triton-*")]
    sweep()
    assert list(own_tmp.iterdir()) == []
    assert [region for name in names for region in leftovers._SHM.glob(f"{name}*")] == []


def test_a_sweep_touches_nothing_of_live_servers_and_follows_no_links(own_tmp: Path, tmp_path: Path) -> None:
    live = RuntimeDir()
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "owner").touch()
    (own_tmp / "ssd-triton-aaaaaaaa").symlink_to(foreign)
    (own_tmp / "ssd-triton-other name").mkdir()
    dead = own_tmp / "ssd-triton-bbbbbbbb"
    dead.mkdir()
    (dead / "owner").write_text(json.dumps({"server_pid": 1, "python_envs": ["../../etc"]}))
    sweep()
    assert live.path.is_dir()
    assert (foreign / "owner").is_file()
    assert not dead.exists()
    assert sorted(path.name for path in own_tmp.iterdir()) == sorted(
        [live.path.name, "ssd-triton-aaaaaaaa", "ssd-triton-other name"]
    )
    live.remove()
    assert not live.path.exists()


@pytest.mark.parametrize("again", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_does_not_interrupt_the_stopping(
    light_repository: Path, tmp_path: Path, own_tmp: Path, again: signal.Signals
) -> None:
    running = start(tmp_path, light_repository)
    group = running.server_pid
    running.process.terminate()
    for _ in range(3):
        time.sleep(0.1)
        running.process.send_signal(again)
    _, errors = running.process.communicate(timeout=30)
    assert running.process.returncode == 0, errors
    assert "Traceback" not in errors
    assert group_members(group) == []
    assert list(own_tmp.iterdir()) == []
    # In order: the server has said that it ended.
    assert "All models are stopped" in running.log.read_text(errors="replace")


# --- Descriptors and the log ------------------------------------------------------------------------------------------


def test_a_low_soft_limit_of_descriptors_is_raised(light_repository: Path, config: Config, photograph: bytes) -> None:
    """400 idle connections with 300 descriptors once stopped every answer, and filled the disk with the log."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 2000:
        pytest.skip(f"the hard limit is {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))
    try:
        with EmbeddedServer(light_repository, "onnx_fp32", config.server.for_one_run()) as server:
            resource.prlimit(os.getpid(), resource.RLIMIT_NOFILE, (soft, hard))
            assert psutil.Process(server.pid).rlimit(psutil.RLIMIT_NOFILE)[0] > 1024
            with contextlib.ExitStack() as idle:
                for port in (server.config.grpc_port, server.config.http_port):
                    for _ in range(600):
                        idle.enter_context(socket.create_connection(("127.0.0.1", port)))
                with DetectorClient(server.url("http"), protocol="http", timeout_s=30) as client:
                    assert len(client.detect(photograph)) > 0
            assert server.log_path.stat().st_size < 1_000_000
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_log_is_appended_to_rotated_and_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "MAX_BYTES", 10_000)
    path = tmp_path / "logs/server.log"
    for run in range(12):
        kept = ServerLog(path)
        with os.fdopen(kept.open_pipe(), "w") as pipe:
            pipe.write("".join(f"run {run}, line {number}\n" for number in range(300)))
        kept.close()
    files = sorted(path.parent.iterdir())
    assert [file.name for file in files] == ["server.log", *(f"server.log.{age}" for age in (1, 2, 3))]
    assert all(file.stat().st_size <= 10_000 for file in files)
    assert path.read_text().splitlines()[-1] == "run 11, line 299"
    # Nothing is lost between one file and the next.
    first, before = path.read_text().splitlines()[0], path.with_name("server.log.1").read_text().splitlines()[-1]
    run = int(first.removeprefix("run ").split(",")[0])
    assert (first, before) == (f"run {run}, line 0", f"run {run - 1}, line 299")


def test_a_flood_costs_lines_and_neither_the_disk_nor_the_server(tmp_path: Path) -> None:
    kept = ServerLog(tmp_path / "server.log")
    flood = b"accept: too many open files\n" * 40_000
    start_s = time.monotonic()
    with os.fdopen(kept.open_pipe(), "wb") as pipe:
        for _ in range(100):
            pipe.write(flood)
        pipe.write(b"the end\n")
    written_s = time.monotonic() - start_s
    kept.close()
    size = sum(file.stat().st_size for file in tmp_path.iterdir())
    assert size < log.BURST_BYTES + log.BYTES_PER_S * (written_s + 1) + 1000
    assert kept.last_lines()[-1] == "the end"
    assert "bytes of the server's lines" in (tmp_path / "server.log").read_text()
    assert written_s < 10


def test_one_log_has_one_server(tmp_path: Path, light_repository: Path, config: Config) -> None:
    path = tmp_path / "server.log"
    with contextlib.closing(ServerLog(path)) as kept:
        kept.note("the first")
        settings = config.server.for_one_run()
        with pytest.raises(ServerError, match=r"another server writes to the log .*server\.log: set another --log"):
            with EmbeddedServer(light_repository, "onnx_fp32", settings, log_path=path):
                pass
        assert path.read_text().endswith("the first\n")
    ServerLog(path).close()


# --- Unloading --------------------------------------------------------------------------------------------------------


def test_unloading_a_model_does_not_end_the_server(light_repository: Path, config: Config, tmp_path: Path) -> None:
    key = tmp_path / "admin.key"
    key.write_text("k" * 32)
    settings = config.server.for_one_run().model_copy(update={"model_control": True, "admin_key_file": key})
    with EmbeddedServer(light_repository, "onnx_fp32", settings) as server:
        for verb in ("unload", "load"):
            url = f"http://{server.url('http')}/v2/repository/models/ssd_detector/{verb}"
            request = urllib.request.Request(url, method="POST", headers={"ssd-admin-key": "k" * 32})
            with urllib.request.urlopen(request, timeout=30):  # noqa: S310 - http
                pass
            deadline_s = time.monotonic() + 2
            while time.monotonic() < deadline_s:
                server.check()
                time.sleep(0.1)
        backend_processes(server.pid)["ssd_detector_0_0"].kill()
        with pytest.raises(ServerError, match="ssd_detector_0_0 has died"):
            for _ in range(200):
                server.check()
                time.sleep(0.05)
