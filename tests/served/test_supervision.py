"""Servers that die or stall come back, and an exposed one has nothing that could end it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import tritonclient.grpc as grpc_client
from tritonclient.grpc import service_pb2
from tritonclient.utils import InferenceServerException

from ssd_triton.client import DetectorClient
from ssd_triton.client.endpoint import parse_endpoint
from ssd_triton.client.grpc_transport import open_channel
from ssd_triton.common.arrays import UInt8Array
from ssd_triton.common.errors import ServerError
from ssd_triton.config import Config
from ssd_triton.measuring.attack.bodies import compressed_body
from ssd_triton.serving.server import EmbeddedServer
from ssd_triton.serving.server.backend_processes import backend_processes
from tests.served.helpers import assert_equal
from tests.served.serving import SERVE, serving, wait_until

BACK_S = 8.0
"""Longest absence of a server that has died; with the light detector it is 1 s on idle cores."""
STALLED_S = 4.0
IMPATIENT = (
    f"from ssd_triton.serving.server import liveness; liveness.STALLED_S, liveness.INTERVAL_S = {STALLED_S}, 0.5; "
)
"""Program: a server is stalled after seconds, not two minutes."""
WRAPPING_SHAPE = [1, 2**32, 2**32, 3]
"""The number of elements wraps to 0 in 64 bits, so that an empty tensor fits."""


@dataclass
class Traffic:
    """Steady good requests of both protocols and both ensembles, each of which must be answered right."""

    answers: int = 0

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
            try:
                assert_equal(ask(client), expected)  # type: ignore[arg-type]
                self.answers += 1
            except Exception as error:  # whatever it is, the test looks for it
                self.problems.append(repr(error))
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
            wait_until(lambda pid=pid: running.has_another_server_than(pid))  # type: ignore[misc]
            wait_until(lambda before=before: traffic.answers > before + 8)  # type: ignore[misc]
        traffic.end()
        errors = running.end()
    assert traffic.problems == []
    absences_s = [float(seconds) for seconds in re.findall(r"tritonserver is back after ([0-9.]+) s", errors)]
    assert len(absences_s) == len(kills)
    assert max(absences_s) < BACK_S
    assert "tritonserver was killed by SIGKILL" in errors
    assert "the process of ssd_preprocess_0_0 has died" in errors
    noted = [line for line in running.log.read_text(errors="replace").splitlines() if line.startswith("ssd-triton")]
    assert [line.split(": ", 1)[1].split(",")[0] for line in noted if "starting" in line] == [
        "starting tritonserver"
    ] * 3
    assert any("was killed by SIGKILL" in line for line in noted)


def test_a_stalled_server_is_restarted_and_one_that_keeps_dying_ends_with_the_reason(
    light_repository: Path, tmp_path: Path, photograph: bytes
) -> None:
    """A process of the backend is stopped: it lives, Triton reports itself ready, and nobody gets an answer."""
    with serving(tmp_path, light_repository, "--max-restarts", "1", program=IMPATIENT + SERVE) as running:
        first = running.server_pid
        with DetectorClient(running.grpc, timeout_s=30, retry_s=60) as client:
            assert len(client.detect(photograph)) > 0
            backend_processes(first)["ssd_preprocess_0_0"].suspend()
            assert len(client.detect(photograph)) > 0
        assert running.has_another_server_than(first)
        os.kill(running.server_pid, signal.SIGKILL)
        _, errors = running.process.communicate(timeout=30)
        assert running.process.returncode == 1
        assert f"tritonserver has detected nothing for {STALLED_S:.0f} s" in errors
        last = errors.splitlines()[-1]
        assert "was killed by SIGKILL" in last
        assert "not restarted: 2 deaths in 10 minutes, server.max_restarts: 1" in last


def test_a_server_that_keeps_what_it_inflates_is_restarted(
    light_repository: Path, tmp_path: Path, photograph: bytes
) -> None:
    """Triton's HTTP front end forgets the inflated body of a request that it refuses."""
    body = compressed_body("gzip", 20 << 20)
    with serving(tmp_path, light_repository, "--set", "server.max_memory_mib=300") as running:
        first = running.server_pid
        with DetectorClient(running.grpc, timeout_s=30, retry_s=60) as client:
            assert len(client.detect(photograph)) > 0
            for _ in range(20):
                request = urllib.request.Request(
                    f"http://{running.http}/v2/models/ssd/infer", body, {"Content-Encoding": "gzip"}
                )
                with contextlib.suppress(OSError):
                    urllib.request.urlopen(request, timeout=20).close()  # noqa: S310 - http
            wait_until(lambda: running.has_another_server_than(first))
            assert len(client.detect(photograph)) > 0
        errors = running.end()
    assert re.search(r"tritonserver holds \d+ MiB, more than server\.max_memory_mib: 300; restart 1 of 5", errors)


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


def test_a_full_server_comes_back_from_a_shape_that_wraps(
    light_repository: Path, tmp_path: Path, photograph: bytes
) -> None:
    with serving(tmp_path, light_repository) as running:
        for url, send in ((running.grpc, send_wrapping_shape_over_grpc), (running.http, send_wrapping_shape_over_http)):
            pid = running.server_pid
            send(url)
            with DetectorClient(running.grpc, timeout_s=30, retry_s=60) as client:
                wait_until(lambda pid=pid: running.has_another_server_than(pid))  # type: ignore[misc]
                assert len(client.detect(photograph)) > 0


def test_an_exposed_server_has_no_model_for_a_shape_that_wraps(
    exposed_server: EmbeddedServer, light_server: EmbeddedServer, photograph: bytes, photograph_rgb: UInt8Array
) -> None:
    for protocol, send in SENDERS.items():
        answer = send(exposed_server.url(protocol))  # type: ignore[arg-type]
        assert b"unknown model" in answer or b"not found" in answer, answer
    exposed_server.check()
    with open_channel_of(exposed_server) as client:
        with pytest.raises(InferenceServerException, match="is restricted"):
            client.load_model("ssd_frames")
        with pytest.raises(InferenceServerException, match="is restricted"):
            client.get_system_shared_memory_status()
    with DetectorClient(exposed_server.url("grpc"), timeout_s=30) as client:
        client.wait_ready(timeout_s=0)
        assert len(client.detect(photograph)) > 0
        # The same pixels, as a file.
        with DetectorClient(light_server.url("grpc"), timeout_s=30) as reference:
            expected = reference.detect_frame(photograph_rgb)
        for _ in range(2):
            assert_equal(client.detect_frame(photograph_rgb), expected)


def open_channel_of(server: EmbeddedServer) -> contextlib.closing[grpc_client.InferenceServerClient]:
    return contextlib.closing(open_channel(parse_endpoint(server.url("grpc"), "grpc"), None))


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
            deadline_s = time.monotonic() + 1
            while time.monotonic() < deadline_s:
                server.check()
                time.sleep(0.1)
        backend_processes(server.pid)["ssd_detector_0_0"].kill()
        with pytest.raises(ServerError, match="ssd_detector_0_0 has died"):
            for _ in range(200):
                server.check()
                time.sleep(0.05)
