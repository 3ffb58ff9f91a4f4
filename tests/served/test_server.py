"""The embedded server: started, refused with Triton's own reasons, and gone afterwards."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import wait
from pathlib import Path

import pytest
from PIL import Image

from ssd_triton.client import DetectorClient
from ssd_triton.common.errors import ConfigError, ServerError
from ssd_triton.common.files import ROOT
from ssd_triton.config import Config, ServerConfig
from ssd_triton.measuring.request_cases import encode
from ssd_triton.serving.server import EmbeddedServer, process
from tests.conftest import assert_one_line_error, children_of, group_members
from tests.interruptible import Interruptible
from tests.served.serving import server_names, server_regions, serving, wait_until

SHM = Path("/dev/shm")


@pytest.fixture
def settings(config: Config) -> ServerConfig:
    return config.server.for_one_run()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """The post-processing and a variant's configuration only: quick to load, easy to break."""
    target = tmp_path / "model_repository"
    shutil.copytree(ROOT / "model_repository/ssd_postprocess", target / "ssd_postprocess")
    return target


@pytest.fixture
def with_variant(repository: Path) -> Path:
    """Adds the detector, whose artefact is missing."""
    artefacts = shutil.ignore_patterns("*.onnx", "*.pt", "*.plan")
    shutil.copytree(ROOT / "model_repository/ssd_detector", repository / "ssd_detector", ignore=artefacts)
    return repository


def test_listens_on_loopback_only(server: EmbeddedServer) -> None:
    loopback = {"0100007F", "0000000000000000FFFF00000100007F"}  # 127.0.0.1, also as an IPv6 socket sees it
    rows = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]]
    listening = [row[1].split(":") for row in rows if row[3] == "0A"]
    for port in (server.config.grpc_port, server.config.http_port, server.config.metrics_port):
        addresses = {address for address, listening_port in listening if int(listening_port, 16) == port}
        assert addresses
        assert addresses <= loopback


def test_a_machine_without_a_gpu_is_no_error(server: EmbeddedServer) -> None:
    """What Triton logs as errors there is harmless, and is not given as a reason for anything."""
    lines = server.log_path.read_text().splitlines()
    logged = [match["text"] for line in lines if (match := process._ERROR_LINE.match(line))]
    assert [text for text in logged if not process._HARMLESS.search(text)] == []


def test_missing_artefact_is_named(with_variant: Path, settings: ServerConfig) -> None:
    with pytest.raises(ServerError) as error, EmbeddedServer(with_variant, "onnx_fp32", settings):
        pass
    message = str(error.value)
    assert "ssd_detector" in message
    assert "onnx_fp32.onnx not found: build it with 'ssd-triton build'" in message
    assert "\n" not in message
    assert "NVML" not in message


def test_damaged_artefact_is_named(with_variant: Path, settings: ServerConfig) -> None:
    (with_variant / "ssd_detector/1/onnx_fp32.onnx").write_bytes(b"no model")
    with (
        pytest.raises(ServerError, match=r"ssd_detector: .*onnx_fp32.onnx"),
        EmbeddedServer(with_variant, "onnx_fp32", settings),
    ):
        pass


def loads_openvino(server: EmbeddedServer) -> bool:
    """Whether a process of the server has mapped OpenVINO's library."""
    return any("libopenvino" in Path(f"/proc/{pid}/maps").read_text() for pid in group_members(server.pid))


def test_execution_accelerators_are_honoured(
    server: EmbeddedServer, with_variant: Path, settings: ServerConfig, photograph: bytes, config: Config
) -> None:
    """Triton's own syntax selects OpenVINO for the detector, and nothing else does."""
    for name in ("ssd", "ssd_frames", "ssd_preprocess", "ssd_preprocess_frames"):
        shutil.copytree(ROOT / "model_repository" / name, with_variant / name)
    shutil.copy(config.model_repository / "ssd_detector/1/onnx_fp32.onnx", with_variant / "ssd_detector/1")
    configs = with_variant / "ssd_detector/configs"
    (configs / "onnx_openvino.pbtxt").write_text(
        (configs / "onnx_fp32.pbtxt").read_text()
        + 'optimization { execution_accelerators { cpu_execution_accelerator : [ { name : "openvino" } ] } }\n'
    )
    assert not loads_openvino(server)
    with (
        EmbeddedServer(with_variant, "onnx_openvino", settings) as accelerated,
        DetectorClient(accelerated.url("grpc"), timeout_s=60) as client,
    ):
        assert client.detect(photograph).filter(score_thresh=0.5).class_ids.tolist() == [1]
        assert loads_openvino(accelerated)


def test_misnamed_tensors_are_named(with_variant: Path, settings: ServerConfig) -> None:
    shutil.copy(with_variant / "ssd_postprocess/1/model.onnx", with_variant / "ssd_detector/1/onnx_fp32.onnx")
    with pytest.raises(ServerError, match=r"has the inputs \['conf', 'loc', 'original_size'\], expected \['image'\]"):
        with EmbeddedServer(with_variant, "onnx_fp32", settings):
            pass


def test_a_batch_s_raw_outputs_fit_into_the_pool_of_gpu_memory(server: EmbeddedServer, config: Config) -> None:
    """Two full batches on their way to the post-processing; without a GPU, Triton takes the size and has no pool."""
    pool_bytes = config.server.cuda_memory_pool_mib * 2**20
    assert pool_bytes > 2 * 64 * (4 + 81) * 8732 * 4
    log = server.log_path.read_text(encoding="utf-8")
    assert re.search(rf"cuda_memory_pool_byte_size\{{0\}}\s*\|\s*{pool_bytes}\s", log)


def test_unknown_variant_is_refused_before_anything_starts(with_variant: Path, settings: ServerConfig) -> None:
    with pytest.raises(ConfigError, match="unknown variant"):
        EmbeddedServer(with_variant, "onnx_int4", settings)


def test_taken_port_is_named(config: Config, settings: ServerConfig) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        taken = settings.model_copy(update={"http_port": port})
        with pytest.raises(ServerError, match=rf"cannot listen on 127.0.0.1:{port} .*http_port"):
            with EmbeddedServer(config.model_repository, "onnx_fp32", taken):
                pass


def test_deadline_says_so_and_leaves_nothing(config: Config, settings: ServerConfig) -> None:
    hurried = EmbeddedServer(
        config.model_repository, "onnx_fp32", settings.model_copy(update={"startup_timeout_s": 0.2})
    )
    with pytest.raises(ServerError, match=r"not ready after 0\.2 s"), hurried:
        pass
    assert hurried.shared_memory() == []


def test_what_a_model_has_begun_is_answered_before_the_end(light_repository: Path, settings: ServerConfig) -> None:
    """Images that keep the decoder busy for seconds. Triton refuses the next step of an ensemble from then on."""
    large = encode(Image.linear_gradient("L").resize((5000, 5000)).convert("RGB"), "JPEG")
    with (
        EmbeddedServer(light_repository, "onnx_fp32", settings) as server,
        DetectorClient(server.url("grpc"), timeout_s=20, in_flight=8) as client,
    ):
        futures = [client.submit_preprocess(large) for _ in range(8)]
        # By then the others have come: some are decoded, and the rest waits for that.
        wait([futures[0]])
        unanswered = [future for future in futures if not future.done()]
        server.stop()
        # On a busy machine one may have come too late; killed at once, the server would have answered none.
        assert not unanswered or any(future.exception() is None for future in unanswered)


def test_a_killed_server_is_noticed_and_cleaned_up(config: Config, settings: ServerConfig) -> None:
    with EmbeddedServer(config.model_repository, "onnx_fp32", settings) as server:
        group = server.pid
        os.kill(server.pid, signal.SIGKILL)
        # A process is gone for its parent only once its last thread has ended.
        with pytest.raises(ServerError, match="was killed by SIGKILL"):
            wait_until(lambda: server.check() is not None)
        runtime_name = server._runtime_dir.path.name
    wait_until(lambda: group_members(group) == [])
    assert list(SHM.glob(f"{runtime_name}*")) == []


def test_serve_ends_cleanly_on_ctrl_c(config: Config, tmp_path: Path, own_tmp: Path) -> None:
    """As a user begins, with nothing but free ports."""
    command = [sys.executable, str(ROOT / "tools/serve.py"), "--grpc-port=0", "--http-port=0", "--metrics-port=0"]
    with Interruptible(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(f"ready: {config.variant}, gRPC 127.0.0.1:")
        [server_pid], names = children_of(process.pid), server_names(own_tmp)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 0, errors
    assert "Traceback" not in errors
    assert group_members(server_pid) == []
    assert len(names) == 1
    assert server_regions(names) == []
    assert (tmp_path / "reports/tritonserver.log").is_file()


def test_a_killed_parent_takes_its_server_along(light_repository: Path, tmp_path: Path) -> None:
    with serving(tmp_path, light_repository) as running:
        server_pid = running.server_pid
        running.process.kill()
        running.process.communicate()
        wait_until(lambda: group_members(server_pid) == [])


def test_serve_reports_a_taken_port_in_one_line(run_script: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert_one_line_error(
            run_script("tools/serve.py", "--no-build", "--grpc-port", port), f"127.0.0.1:{port}", "grpc_port"
        )
