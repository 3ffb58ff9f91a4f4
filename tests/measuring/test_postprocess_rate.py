"""perf/postprocess_rate.py, on a machine that has little more than PyTorch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ssd_triton.common.files import ROOT
from ssd_triton.config import Config
from ssd_triton.measuring.benchmark.postprocess_rate import crowded
from ssd_triton.serving.repository.build import ensure_built
from tests.conftest import assert_one_line_error

LACKING = ("tritonclient", "google.protobuf", "onnx", "onnxruntime", "psutil", "pytriton")


def run(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run it where importing any of LACKING fails."""
    script = str(ROOT / "perf/postprocess_rate.py")
    code = (
        "import runpy, sys\n"
        f"sys.modules.update(dict.fromkeys({LACKING}))\n"
        f"sys.argv[0] = {script!r}\n"
        f"runpy.run_path({script!r}, run_name='__main__')\n"
    )
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.slow
def test_it_measures_with_pytorch_and_little_else(config: Config, tmp_path: Path) -> None:
    ensure_built(config, lambda line: None, only=["pytorch_fp32"])
    result = run(tmp_path, "--device", "cpu", "--batch", 1, "--turns", 1, "--num-images", 1, "--output", "out")
    assert result.returncode == 0, result.stderr
    rows = [line.split(" | ") for line in result.stdout.splitlines() if line.startswith("| ")][1:]
    assert [row[0].strip("| ") for row in rows] == ["photographs", "crowded"]
    for row in rows:
        equal, of = row[-1].strip(" |").split(" of ")
        assert equal == of and int(of) > 0
        assert 0 < float(row[4]) <= float(row[5]) <= float(row[6])
    assert rows[1][-1].startswith("200 of 200")
    assert (tmp_path / "out/postprocess_rate.png").stat().st_size > 1000
    assert (tmp_path / "out/postprocess_rate.md").read_text() == result.stdout


@pytest.mark.slow
def test_a_missing_artefact_is_one_line(tmp_path: Path) -> None:
    assert_one_line_error(run(tmp_path, "--module", "none.pt"), "none.pt is missing", "ssd-triton build")


def test_crowded_is_more_than_enters_suppression() -> None:
    scores = torch.softmax(crowded(81, torch.device("cpu"))(2)["conf"], 1)[:, 1:]
    assert (scores > 0.05).sum(2).min() > 200
