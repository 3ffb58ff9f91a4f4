"""Real sweeps of perf_analyzer on real servers."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from ssd_triton.common.errors import ServerError
from ssd_triton.common.files import ROOT
from ssd_triton.common.journal import JournalError
from ssd_triton.config import Config
from ssd_triton.measuring.sweeps.errors import SweepError
from ssd_triton.measuring.sweeps.measurements import read_measurements
from ssd_triton.measuring.sweeps.perf_analyzer import Load, PerfAnalyzerError, UnstableError, bytes_element, measure
from ssd_triton.measuring.sweeps.sweep_file import load_sweep
from ssd_triton.measuring.sweeps.sweep_plan import Endpoints, make_plan
from ssd_triton.measuring.sweeps.sweep_run import run_sweep
from ssd_triton.serving.server import EmbeddedServer
from tests.interruptible import Interruptible
from tests.measuring.helpers import SMALL

RunScript = Callable[..., "subprocess.CompletedProcess[str]"]


def test_a_sweep_of_a_running_server_goes_on_and_reports(
    run_script: RunScript, config: Config, server: EmbeddedServer, tmp_path: Path
) -> None:
    (tmp_path / "small.yml").write_text(SMALL, encoding="utf-8")
    first = run_script("perf/sweep.py", "small.yml", "--url", server.url("grpc"), "--output", "out")
    assert first.returncode == 0, first.stderr
    [row] = read_measurements(tmp_path / "out")
    assert row.images_per_s > 0 and 0 < row.p50_ms <= row.p95_ms <= row.p99_ms
    assert [stage.model for stage in row.stages] == ["ssd", "ssd_detector", "ssd_postprocess", "ssd_preprocess"]
    inner_ms = sum(stage.queue_ms + stage.compute_ms for stage in row.stages if stage.model != "ssd")
    # One request at a time: nothing is shared.
    assert all(
        stage.work_ms == pytest.approx(stage.compute_ms, rel=0.1) for stage in row.stages if stage.model != "ssd"
    )
    assert inner_ms == pytest.approx(row.stages[0].total_ms, rel=0.2)
    assert "the bottleneck of `ssd` is `ssd_detector`" in first.stdout
    raw = tmp_path / "out" / "raw" / "onnx_fp32_ssd_b1_c1_grpc_1"
    assert "p95 latency" in (raw / "report.csv").read_text(encoding="utf-8")
    assert "Throughput" in (raw / "perf_analyzer.txt").read_text(encoding="utf-8")
    endpoints = Endpoints(server.url("grpc"))
    plan = make_plan(load_sweep(tmp_path / "small.yml"), config, endpoints)
    assert run_sweep(plan, config, tmp_path / "out", endpoints=endpoints) == [row]
    (tmp_path / "small.yml").write_text(SMALL.replace("concurrency: [1]", "concurrency: [2]"), encoding="utf-8")
    other = make_plan(load_sweep(tmp_path / "small.yml"), config, endpoints)
    with pytest.raises(JournalError, match=r"holds results of something else: .*sweep\.loads.*--restart"):
        run_sweep(other, config, tmp_path / "out", endpoints=endpoints)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("onnx_fp32", "onnx_int8"), "serves onnx_fp32, and the sweep is about onnx_int8"),
        (("concurrency: [1]", "concurrency: [1], protocol: [http]"), "give --http-url"),
        (("rounds: 1", "settings: {one: {}}"), "run it without --url"),
    ],
)
def test_a_running_server_that_does_not_fit_is_refused(
    config: Config, light_server: EmbeddedServer, tmp_path: Path, change: tuple[str, str], words: str
) -> None:
    (tmp_path / "other.yml").write_text(SMALL.replace(*change), encoding="utf-8")
    with pytest.raises(SweepError, match=words):
        make_plan(load_sweep(tmp_path / "other.yml"), config, Endpoints(light_server.url("grpc")))


def test_a_dying_server_ends_the_sweep_with_its_reason(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "long.yml").write_text(SMALL.replace("images: 1,", "images: 1000,"), encoding="utf-8")
    plan = make_plan(load_sweep(tmp_path / "long.yml"), config)
    started = EmbeddedServer.__enter__

    def kill_soon(self: EmbeddedServer) -> EmbeddedServer:
        started(self)
        threading.Timer(1, os.kill, (self.pid, signal.SIGKILL)).start()
        return self

    monkeypatch.setattr(EmbeddedServer, "__enter__", kill_soon)
    with pytest.raises(ServerError, match="was killed by SIGKILL"):
        run_sweep(plan, config, tmp_path / "out")
    assert read_measurements(tmp_path / "out") == []


def test_unstable_windows_a_deadline_and_a_missing_model(light_server: EmbeddedServer, photograph: bytes) -> None:
    load = Load("ssd", light_server.url("grpc"), [{"IMAGE": bytes_element(photograph)}], 1, 1, stability_percent=1e-6)
    with pytest.raises(UnstableError, match="no stable measurement within 3 windows"):
        measure(replace(load, max_trials=3), timeout_s=120)
    with pytest.raises(PerfAnalyzerError, match="longer than 1 s"):
        measure(replace(load, requests=10_000), timeout_s=1)
    with pytest.raises(PerfAnalyzerError, match="failed for nothing"):
        measure(replace(load, model="nothing"), timeout_s=60)


def test_a_rate_is_not_held_back_by_few_threads(light_server: EmbeddedServer, photograph: bytes) -> None:
    """Left to itself, perf_analyzer has four requests in flight at any rate."""
    image = {"IMAGE": bytes_element(photograph)}
    load = Load("ssd_preprocess", light_server.url("grpc"), [image], 12, 1, window_s=1, request_rate=5000)
    waiting = re.compile(rb'^nv_inference_pending_request_count\{model="ssd_preprocess".*\} (\d+)', re.MULTILINE)
    pending, done = [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.02):
            metrics = urllib.request.urlopen(light_server.metrics_url, timeout=10).read()  # noqa: S310 -- its own address
            pending.extend(map(int, waiting.findall(metrics)))

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        # At such a rate, which windows agree is a matter of luck.
        with contextlib.suppress(UnstableError):
            measure(replace(load, max_trials=3), timeout_s=60)
    finally:
        done.set()
        watching.join()
    assert 4 < max(pending) <= 12


def test_interrupting_a_sweep_leaves_nothing_behind(config: Config, tmp_path: Path) -> None:
    (tmp_path / "long.yml").write_text(SMALL.replace("images: 1,", "images: 1000,"), encoding="utf-8")
    command = [sys.executable, str(ROOT / "perf" / "sweep.py"), "long.yml", "--output", "out"]
    with Interruptible(command, cwd=tmp_path, stderr=subprocess.PIPE) as process:
        deadline_s = time.monotonic() + 60
        while not list(tmp_path.glob("out/raw/*.log")) and time.monotonic() < deadline_s:
            time.sleep(0.1)
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.strip().endswith("sweep.py: interrupted")
    log = next(tmp_path.glob("out/raw/*.log"))
    running = subprocess.run(["ps", "-eo", "args="], capture_output=True, text=True, check=True).stdout
    assert str(tmp_path) not in running and log.is_file()
    assert read_measurements(tmp_path / "out") == []
