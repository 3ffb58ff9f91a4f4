"""The TensorRT variants as far as a machine without a GPU can take them: real plans, refused for the right reason.

An engine runs only on the GPU that it was built for; what is tested here is everything before that, and on a machine
with a GPU and TensorRT the parity of what runs.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from ssd_triton.common.files import ROOT
from ssd_triton.common.machine import find_gpu
from ssd_triton.config import Config
from ssd_triton.detector.engines.engine import Engine
from ssd_triton.detector.engines.errors import EngineError
from ssd_triton.detector.engines.metadata import metadata_path
from ssd_triton.detector.engines.runner import EngineRunner
from ssd_triton.detector.export.samples import photographs
from ssd_triton.detector.network.ssd import ServedDetector
from ssd_triton.evaluation.parity import check_parity
from ssd_triton.serving.repository.build import artefacts, ensure_built
from ssd_triton.serving.repository.repository import ModelRepository
from ssd_triton.serving.runnable import runnable_variants
from tests.detector.engines import build_plan, needs_rtx, without_gpu

pytestmark = pytest.mark.slow

VARIANTS = ("tensorrt_fp32", "tensorrt_fp16", "tensorrt_int8")
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def plan(config: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_plan(config, tmp_path_factory.mktemp("plans") / "tensorrt_fp16.plan")


@needs_rtx
@pytest.mark.parametrize(
    ("asked", "changed", "words"),
    [
        ({"precision": "int8"}, {}, ["precision: got fp16, expected int8", "--precision int8"]),
        ({"max_batch_size": 32}, {}, ["profile: got 1/8/64, expected 1/8/32"]),
        ({}, {"runtime_version": "0.1"}, ["runtime version: got 0.1, expected ", "--runtime tensorrt-rtx"]),
        ({}, {"plan_sha256": "0" * 64}, ["is not the file that was built", "--precision fp16"]),
        ({}, {}, ["runs on a GPU, got the device 'cpu'"]),
    ],
)
@pytest.mark.slow
def test_a_plan_that_does_not_fit_is_not_loaded(
    plan: Path, tmp_path: Path, asked: dict[str, Any], changed: dict[str, Any], words: list[str]
) -> None:
    copy = tmp_path / plan.name
    shutil.copy(plan, copy)
    record = json.loads(metadata_path(plan).read_text())
    metadata_path(copy).write_text(json.dumps({**record, **changed}))
    with pytest.raises(EngineError) as error:
        EngineRunner(copy, CPU, **{"precision": "fp16", "max_batch_size": 64, **asked})
    for word in words:
        assert word in str(error.value)


@without_gpu
def test_engines_are_skipped_where_they_cannot_be_built(config: Config, tmp_path: Path) -> None:
    # The artefacts themselves are of no interest: their places are left empty.
    shutil.copytree(config.model_repository, tmp_path / "models", ignore=shutil.ignore_patterns("*.pt", "*.onnx"))
    there = config.model_copy(update={"model_repository": tmp_path / "models"})
    engines = {one.path.name: one for one in artefacts(there) if isinstance(one, Engine)}
    assert sorted(engines) == [f"{variant}.plan" for variant in sorted(VARIANTS)]
    for engine in engines.values():
        assert engine.stale_because() == "missing"
        assert engine.unavailable_because() == "no GPU here; it is built where it is served"


@without_gpu
def test_an_engine_asked_for_by_name_says_what_is_missing(config: Config) -> None:
    lines: list[str] = []
    with pytest.raises(EngineError, match=r"tensorrt cannot be imported|TensorRT builds for the GPU it runs on"):
        ensure_built(config, lines.append, only=["tensorrt_int8"])
    # INT8 is made from the quantised file, and that from FP32: both come first.
    order = [Path(line.split()[1]).name for line in lines if not line.startswith("built")]
    assert order == ["model.pt", "onnx_fp32.onnx", "onnx_int8.onnx", "tensorrt_int8.plan"]


@needs_rtx
def test_a_plan_of_another_onnx_file_is_out_of_date(config: Config, plan: Path) -> None:
    settings = config.tensorrt.model_copy(update={"runtime": "tensorrt-rtx"})
    engine = replace(ModelRepository(config.model_repository).engine("tensorrt_fp16", settings), path=plan)
    if find_gpu() is None:
        assert engine.stale_because() is None
    reason = replace(engine, onnx=ROOT / "config.yml").stale_because()
    assert reason is not None and "onnx sha256: got" in reason


@pytest.mark.skipif(
    find_gpu() is None or find_spec("tensorrt") is None, reason="needs a GPU and TensorRT to run an engine"
)
def test_engines_run_and_are_close(config: Config, reference_detector: ServedDetector) -> None:
    ensure_built(config, lambda line: None, only=list(VARIANTS))
    engines = [
        one for one in runnable_variants(config, reference_detector, torch.device("cuda")) if one.name in VARIANTS
    ]
    assert [one.name for one in engines] == list(VARIANTS)
    results = check_parity(reference_detector, engines, photographs(None, 4), config.parity.model_dump())
    assert all(one.passed for one in results), results
