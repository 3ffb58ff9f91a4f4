"""perf/engine_rate.py: the real engine on a CPU, on a machine that has little more than PyTorch."""

from __future__ import annotations

import csv
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ssd_triton.common.errors import UserError
from ssd_triton.common.files import ROOT
from ssd_triton.config import Config
from ssd_triton.measuring.benchmark.engine_files import Setup
from ssd_triton.measuring.benchmark.engine_rate import measure_engine_rate
from ssd_triton.measuring.benchmark.engine_report import (
    CHECK,
    DECODE,
    ENGINE,
    NETWORK,
    SERVER,
    Rate,
    lanes,
    limit,
    server_rates,
    write_report,
)
from ssd_triton.serving.repository.build import ensure_built
from tests.conftest import assert_one_line_error, group_members
from tests.interruptible import Interruptible

LACKING = (
    "tritonclient",
    "google.protobuf",
    "onnx",
    "onnxruntime",
    "psutil",
    "pytriton",
    "cv2",
    "scipy",
    "safetensors",
)
FEEDERS = 2
_VERB = f"""
import sys
sys.modules.update(dict.fromkeys({LACKING}))
from ssd_triton.commands import main
from ssd_triton.measuring.benchmark import timing
# The network takes up to a second on a CPU.
timing._WARM_UP_RUNS, timing._MIN_RUNS, timing._SLICE_S = 1, 1, 0.05
sys.argv[0] = "ssd-triton engine-rate"
main("engine-rate")
"""
_FEED = f"""
import sys
from pathlib import Path
from ssd_triton.commands.runner import exit_code
from ssd_triton.measuring.benchmark.engine_feed import measure_engine
from ssd_triton.measuring.benchmark.engine_files import Setup, encoded_images

def run():
    setup = Setup.of(Path(sys.argv[1]), "cpu", None)
    measure_engine(setup, list(encoded_images(None, 2).values()), [1], feeders={FEEDERS}, seconds=100)
    return 0

sys.exit(exit_code(run, "feed"))
"""


def verb(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run it where importing any of LACKING fails."""
    command = [sys.executable, "-c", _VERB, "--device", "cpu", *map(str, arguments)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="module")
def built(config: Config) -> Path:
    """The model repository with the engine's artefacts."""
    ensure_built(config, lambda line: None, only=["pytorch_fused_fp16"])
    return config.model_repository


@pytest.mark.slow
def test_it_measures_and_names_the_slowest_stage(built: Path, tmp_path: Path) -> None:
    options = ["--batch", 1, "--turns", 1, "--feeders", FEEDERS, "--seconds", 0.1, "--num-images", 2, "--output", "out"]
    result = verb(tmp_path, *options)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "out/engine_rate.md").read_text(encoding="utf-8") == result.stdout
    assert (tmp_path / "out/engine_rate.png").stat().st_size > 1000
    with (tmp_path / "out/engine_rate.csv").open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert [row["lane"] for row in rows] == [CHECK, DECODE, NETWORK, ENGINE]
    rates = {row["lane"]: float(row["images_per_s"]) for row in rows}
    for row in rows:
        assert 0 < float(row["p50_ms"]) <= float(row["p95_ms"]) <= float(row["p99_ms"])
    assert rates[CHECK] > rates[DECODE] > rates[NETWORK]
    assert f"Batches of 1, limit: {NETWORK}, {rates[NETWORK]:.3g} images/s; the whole engine reaches " in result.stdout
    assert "PIL decodes and resizes in the instances (no GPU)" in result.stdout
    whole = rows[-1]
    # Each process has one job in flight, so that the jobs that were counted fill the time of all processes.
    assert int(whole["runs"]) >= FEEDERS
    assert 0.5 < rates[ENGINE] * float(whole["p50_ms"]) / 1e3 / FEEDERS < 2
    assert float(whole["cpu_ms"]) > 10


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["loading", "under load"])
def test_ctrl_c_leaves_no_process(built: Path, tmp_path: Path, moment: str) -> None:
    log = tmp_path / "log"
    command = [sys.executable, "-c", _FEED, str(built)]
    with (
        log.open("w", encoding="utf-8") as stderr,
        Interruptible(command, cwd=tmp_path, stderr=stderr, start_new_session=True) as process,
    ):
        # Itself, multiprocessing's own tracker, the engine, and at last the processes that feed it.
        processes = 3 if moment == "loading" else 3 + FEEDERS
        _wait_until(lambda: len(group_members(process.pid)) == processes)
        time.sleep(0.5)
        assert ("ssd engine:" in log.read_text()) == (moment == "under load")
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
        _wait_until(lambda: group_members(process.pid) == [])
    lines = log.read_text().splitlines()
    assert lines[-1] == "feed: interrupted"
    assert "Traceback" not in log.read_text()


def _wait_until(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.05)


def test_user_errors_are_one_line(run_main: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path) -> None:
    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        return run_main("perf/engine_rate.py", "--device", "cpu", *arguments)

    assert_one_line_error(run("--detector", "none.pt"), "none.pt is missing: build it with 'ssd-triton build'")
    assert_one_line_error(
        run("--model-repository", tmp_path), "pytorch_fused_fp16.pbtxt is missing", "ssd-triton build"
    )
    (tmp_path / "some.pt").touch()
    (tmp_path / "photographs").mkdir()
    assert_one_line_error(run("--detector", "some.pt", "--images", "photographs"), "got 0 images", "64 or more")
    sweep = ROOT / "perf/results/h200"
    assert_one_line_error(run("--detector", "some.pt", "--sweep", sweep), "no figure of ssd with some")


def test_a_batch_beyond_the_engine_s_is_refused(tmp_path: Path) -> None:
    setup = Setup(tmp_path, {"batch_sizes": "1,8"}, "cpu", tmp_path, tmp_path)
    with pytest.raises(UserError, match="got batches of 9, expected at most 8"):
        measure_engine_rate(setup, {}, torch.device("cpu"), batches=[1, 9], turns=1, feeders=1, seconds=1)


def rate(lane: str, images_per_s: float, batch: int = 64) -> Rate:
    ms = 1e3 * batch / images_per_s
    return Rate(lane, lane, batch, 1, 9, ms, ms, ms, images_per_s)


def test_stages_of_a_lane_add_up_and_the_largest_batch_is_drawn(tmp_path: Path) -> None:
    stages = [rate(DECODE, 12_000), rate(DECODE, 12_000), rate(NETWORK, 9_400), rate(NETWORK, 2_000, 1)]
    assert lanes(stages, 64) == pytest.approx({DECODE: 6_000, NETWORK: 9_400})
    assert limit(stages, 64) == (DECODE, pytest.approx(6_000))
    assert limit(stages, 1) == (NETWORK, pytest.approx(2_000))
    with (ROOT / "perf/results/h200/table.csv").open(encoding="utf-8", newline="") as lines:
        rows = [row for row in csv.DictReader(lines) if row["model"] == "ssd" and not row["rate_share"]]
    best = [max(float(row["images_per_s"] or 0) for row in rows if row["batch"] == batch) for batch in ("64", "1")]
    served = server_rates(ROOT / "perf/results/h200", "pytorch_fused_fp16")
    assert [(one.lane, one.batch) for one in served] == [(SERVER, 64), (SERVER, 1)]
    assert [one.images_per_s for one in served] == pytest.approx(best, rel=1e-4)
    text = write_report(tmp_path, [*stages, rate(ENGINE, 5_900), *served], {"device": "a GPU"}, ["A note."])
    assert f"Batches of 64, limit: {DECODE}, 6,000 images/s; the whole engine reaches 5,900, 98% of it." in text
    assert "| through Triton, requests of 64 | 64 |" in text and "- A note." in text
    assert (tmp_path / "engine_rate.png").stat().st_size > 1000


def test_a_folder_without_measurements_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError):
        server_rates(tmp_path, "pytorch_fused_fp16")
