"""What goes wrong in production, with real processes: killed servers, full disks, slow readers."""

from __future__ import annotations

import io
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssd_triton.client import BackendProcessDiedError, DetectorClient
from ssd_triton.common.arrays import UInt8Array
from ssd_triton.common.detections import Detections
from ssd_triton.config import Config
from ssd_triton.media.video import VideoWriter
from ssd_triton.serving.server import EmbeddedServer
from ssd_triton.serving.server.backend_processes import backend_processes
from tests.conftest import assert_one_line_error
from tests.driving.demo import evenly, events_of, frames_of, run, write_clip
from tests.served.helpers import seconds_until_asked
from tests.served.serving import serving

CLIP_FRAMES = 48
LOST_S = 2.0
"""That a restart of the server may cost beyond the time it is down."""


# --- A process of the python backend that dies ------------------------------------------------------------------------


def test_a_dead_backend_process_is_named_and_a_restart_mends_it(
    light_repository: Path, tmp_path: Path, photograph: bytes
) -> None:
    with serving(tmp_path, light_repository, "--max-restarts", "0") as running:
        first, ports, server_pid = running.process, running.ports, running.server_pid
        # Stopped, so that it cannot end the server before the clients have seen what Triton itself says.
        first.send_signal(signal.SIGSTOP)
        backend_processes(server_pid)["ssd_preprocess_0_0"].kill()
        for protocol, port in (("grpc", ports[0]), ("http", ports[1])):
            with DetectorClient(f"127.0.0.1:{port}", protocol=protocol, timeout_s=30) as client:  # type: ignore[arg-type]
                with pytest.raises(BackendProcessDiedError, match=r"ssd_preprocess_0_0 has died, .*restart the server"):
                    client.detect(photograph)
                assert client.retries == 0
                # Triton's health says nothing of it.
                assert client.is_ready()
        with DetectorClient(f"127.0.0.1:{ports[0]}", timeout_s=30) as client, pytest.raises(BackendProcessDiedError):
            list(client.stream([photograph]))
        patient = DetectorClient(f"127.0.0.1:{ports[0]}", timeout_s=30, retry_s=120)
        waiting = patient.submit(photograph)
        first.send_signal(signal.SIGCONT)
        _, errors = first.communicate(timeout=30)
        assert first.returncode == 1
        assert "Traceback" not in errors
        assert "error: the process of ssd_preprocess_0_0 has died" in errors.splitlines()[-1]
        assert not waiting.done()
    with patient, serving(tmp_path, light_repository, ports=ports):
        assert len(waiting.result(timeout=60)) > 0
        assert patient.retries > 0


# --- A server that is killed under the demo ---------------------------------------------------------------------------


class Counting:
    """Passes frames on, and counts them."""

    def __init__(self, client: DetectorClient) -> None:
        self.client = client
        self.frames = 0

    def submit_frame(self, frame_rgb: UInt8Array) -> Future[Detections]:
        self.frames += 1
        return self.client.submit_frame(frame_rgb)


@pytest.fixture(scope="module")
def approach_clip(tmp_path_factory: pytest.TempPathFactory, photograph: bytes) -> Path:
    """A person that grows: two seconds."""
    path = tmp_path_factory.mktemp("approach") / "clip.mp4"
    person = Image.open(io.BytesIO(photograph)).convert("RGB")
    with VideoWriter(path, (320, 180), 25) as writer:
        for index in range(CLIP_FRAMES):
            scene = Image.new("RGB", (320, 180), (120, 130, 140))
            scene.paste(person.resize((60 + index, 90 + 3 * index // 2)), (130 - index // 2, 60 - index))
            writer.write(np.asarray(scene), index / 25)
    return path


def without_latency(events: list[dict[str, object]]) -> list[dict[str, object]]:
    return [{key: value for key, value in event.items() if not key.startswith("latency")} for event in events]


def test_a_server_killed_under_the_demo_loses_nothing(
    config: Config,
    labels: tuple[str, ...],
    approach_clip: Path,
    light_repository: Path,
    tmp_path: Path,
) -> None:
    demo = {"server_deadline_s": 120.0, "score_thresh": 0.3}
    clips = [shutil.copy(approach_clip, tmp_path / name) for name in ("a.mp4", "b.mp4")]
    (tmp_path / "b").mkdir()
    settings = config.server.for_one_run()
    clip = tmp_path / "b" / "b.mp4"
    shutil.move(clips[1], clip)
    with ThreadPoolExecutor(1) as pool:
        with EmbeddedServer(light_repository, "onnx_fp32", settings) as first:
            client = DetectorClient(first.url("grpc"), timeout_s=60, retry_s=120)
            undisturbed = run(config, labels, clips[0], client, **demo)
            counting = Counting(client)
            future = pool.submit(lambda: run(config, labels, clip, counting, **demo))
            while counting.frames < 7:
                assert not future.done()
                time.sleep(0.01)
            os.kill(first.pid, signal.SIGKILL)
        ports = {name: getattr(first.config, name) for name in ("grpc_port", "http_port", "metrics_port")}
        with client, EmbeddedServer(light_repository, "onnx_fp32", settings.model_copy(update=ports)) as second:
            lost_s = seconds_until_asked(second, "ssd_preprocess_frames")
            summary = future.result(timeout=120)
    assert client.retries > 0
    assert lost_s < LOST_S
    assert (summary.frames, summary.unanswered_frames, summary.failure) == (CLIP_FRAMES, 0, None)
    assert counting.frames == CLIP_FRAMES
    assert summary.state_counts == undisturbed.state_counts
    assert without_latency(events_of(summary)) == without_latency(events_of(undisturbed))
    assert len(frames_of(summary.outputs.video)) == CLIP_FRAMES


# --- Slow readers -----------------------------------------------------------------------------------------------------


def test_a_slow_reader_of_a_stream_holds_back_the_requests(light_server: EmbeddedServer, photograph: bytes) -> None:
    """And its own slowness is no missed deadline."""
    taken = 0

    def images() -> Iterator[bytes]:
        nonlocal taken
        for _ in range(5):
            taken += 1
            yield photograph

    with DetectorClient(light_server.url("grpc"), timeout_s=30, in_flight=2) as client:
        expected = len(client.detect(photograph))
        for read, answer in enumerate(client.stream(images()), start=1):
            time.sleep(0.2)
            assert taken - read <= 2
            assert isinstance(answer, Detections)
            assert len(answer) == expected
    assert taken == 5


# --- No room ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = shutil.which("mount") is not None and os.geteuid() == 0
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if not mounted or subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("no right to mount a file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_one_line_and_leaves_no_half_file(
    run_script: Callable[..., subprocess.CompletedProcess[str]],
    light_server: EmbeddedServer,
    small_disk: Path,
    tmp_path: Path,
    photograph: bytes,
) -> None:
    (tmp_path / "person.jpg").write_bytes(photograph)
    write_clip(tmp_path / "clip.mp4", evenly(12))
    url = ("--url", light_server.url("grpc"))
    demo = run_script("clients/brake_demo.py", "--video", "clip.mp4", "--output", small_disk / "out.mp4", *url)
    assert_one_line_error(demo, "out.mp4: cannot be written (No space left on device)", "--output")
    assert [path.name for path in small_disk.iterdir() if path.suffix != ".jsonl"] == []
    (small_disk / "out.events.jsonl").unlink(missing_ok=True)
    detect = run_script("clients/detect.py", "person.jpg", "--output", small_disk, *url)
    assert_one_line_error(detect, "No space left on device", "make room")
    assert not any(path.name.startswith(".") for path in small_disk.iterdir())
    assert not (small_disk / "detections.json").exists()


def test_full_shared_memory_sends_the_frames_instead(
    light_server: EmbeddedServer, tmp_path: Path, photograph_rgb: UInt8Array
) -> None:
    """Writing into a region that the system cannot back would kill the client."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("no right to mount a file system")
    np.save(tmp_path / "frame.npy", photograph_rgb)
    program = (
        "import logging, sys, numpy as np; from ssd_triton.client import DetectorClient; "
        "logging.basicConfig(level=logging.INFO); "
        f"print(len(DetectorClient('{light_server.url('grpc')}', timeout_s=60).detect_frame(np.load('frame.npy'))))"
    )
    inside = 'mount -t tmpfs -o size=256k tmpfs /dev/shm && exec "$0" -c "$1"'
    result = subprocess.run(
        ["unshare", "--mount", "sh", "-c", inside, sys.executable, program],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if "permission denied" in result.stderr.lower():
        pytest.skip("no right to mount a file system")
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) > 0
    assert "No space left on device" in result.stderr
