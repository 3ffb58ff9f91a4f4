"""The server gives the reason why an engine does not load."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ssd_triton.common.errors import ServerError
from ssd_triton.common.files import ROOT
from ssd_triton.config import Config
from ssd_triton.detector.engines.metadata import metadata_path
from ssd_triton.serving.server import EmbeddedServer
from tests.detector.engines import build_plan, needs_rtx, without_gpu


@pytest.fixture(scope="module")
def plan(config: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_plan(config, tmp_path_factory.mktemp("plans") / "tensorrt_fp16.plan")


@needs_rtx
@without_gpu
@pytest.mark.parametrize(
    ("precision", "reason"),
    [("fp16", "runs on a GPU, got the device 'cpu'"), ("int8", "precision: got fp16, expected int8")],
)
def test_the_server_gives_the_reason(config: Config, plan: Path, tmp_path: Path, precision: str, reason: str) -> None:
    """The real backend in the real server, with a configuration that lets it start on a CPU."""
    models = tmp_path / "models"
    skip = shutil.ignore_patterns("*.onnx", "*.pt", "*.plan")
    shutil.copytree(ROOT / "model_repository/ssd_detector", models / "ssd_detector", ignore=skip)
    for file in (plan, metadata_path(plan)):
        shutil.copy(file, models / "ssd_detector/1")
    variant = models / "ssd_detector/configs/tensorrt_fp16.pbtxt"
    text = variant.read_text().replace("KIND_GPU", "KIND_CPU").replace('"fp16"', f'"{precision}"')
    variant.write_text(text)
    settings = config.server.for_one_run()
    with pytest.raises(ServerError) as error, EmbeddedServer(models, "tensorrt_fp16", settings):
        pass
    assert reason in str(error.value)
    assert "ssd_detector" in str(error.value)
