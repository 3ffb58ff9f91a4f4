"""What tests of TensorRT engines share."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from ssd_triton.common.machine import find_gpu
from ssd_triton.config import Config
from ssd_triton.detector.engines.build import build_engine
from ssd_triton.detector.engines.engine import Engine
from ssd_triton.serving.repository.build import ensure_built

OLD = b"the engine of yesterday"

needs_rtx = pytest.mark.skipif(
    find_spec("tensorrt_rtx") is None, reason="tensorrt_rtx is not installed: pip install -e '.[tensorrt-rtx]'"
)
without_gpu = pytest.mark.skipif(find_gpu() is not None, reason="there is a GPU here")


def buildable_engine(config: Config, onnx: Path, plan: Path) -> Engine:
    """An FP16 engine for a GPU that is not here."""
    return Engine(
        path=plan,
        onnx=onnx,
        precision="fp16",
        max_batch_size=64,
        num_labels=81,
        settings=config.tensorrt.model_copy(update={"runtime": "tensorrt-rtx"}),
        compute_capability="8.9",
    )


def build_plan(config: Config, path: Path) -> Path:
    """Build a real FP16 engine, for a GPU that is not here."""
    ensure_built(config, lambda line: None, only=["onnx_fp32"])
    build_engine(buildable_engine(config, config.model_repository / "ssd_detector/1/onnx_fp32.onnx", path))
    return path
