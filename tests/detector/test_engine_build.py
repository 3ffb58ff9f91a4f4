"""TensorRT engines, built for real with TensorRT-RTX, which needs no GPU to build; and their FP16 networks."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from ssd_triton.common.errors import ExportError
from ssd_triton.common.files import sha256_of
from ssd_triton.common.machine import find_gpu
from ssd_triton.detector.engines import build as engine
from ssd_triton.detector.engines.build import build_engine, unexpected_layers
from ssd_triton.detector.engines.engine import Engine
from ssd_triton.detector.engines.errors import EngineError
from ssd_triton.detector.engines.inspection import EngineReport
from ssd_triton.detector.engines.metadata import EngineMetadata, check_engine, inspect_engine
from ssd_triton.detector.engines.onnx_source import BORDER
from ssd_triton.detector.engines.runtime import captured_log, load_runtime
from ssd_triton.detector.export.compare import check_interface, check_values, run_onnx
from ssd_triton.detector.export.half import to_half
from ssd_triton.detector.export.samples import photographs
from tests.conftest import long
from tests.detector.engines import needs_rtx

pytestmark = pytest.mark.slow

CAPABILITIES = ("8.6", "8.9", "12.0")
PRECISIONS = ("fp32", "fp16", "int8")
CONVOLUTIONS = 65
FP16_MAX_RELATIVE_ERROR = 5e-3
"""Of FP16 variants against FP32, both outputs."""


# --- Building ---------------------------------------------------------------------------------------------------------


@needs_rtx
@pytest.mark.parametrize(
    ("precision", "capability"),
    [
        pytest.param(precision, capability, marks=() if gpu == number else long)
        for number, precision in enumerate(PRECISIONS)
        for gpu, capability in enumerate(CAPABILITIES)
    ],
)
@pytest.mark.slow
def test_every_precision_builds_for_every_gpu(
    buildable: Engine, onnx_fp32: Path, onnx_int8: Path, precision: Any, capability: str
) -> None:
    source = onnx_int8 if precision == "int8" else onnx_fp32
    wanted = replace(buildable, precision=precision, onnx=source, compute_capability=capability)
    metadata = build_engine(wanted)
    assert metadata.plan_sha256 == sha256_of(wanted.path)
    assert metadata.onnx_sha256 == sha256_of(source)
    assert (metadata.compute_capability, metadata.precision) == (capability, precision)
    assert str(metadata.profile) == "1/8/64"
    # Weights take 4, 2 and 1 byte each; 22.9 million of them.
    bytes_per_weight = wanted.path.stat().st_size / 22.9e6
    assert bytes_per_weight == pytest.approx({"fp32": 4, "fp16": 2, "int8": 1}[precision], rel=0.4)
    _assert_layers(metadata, source)
    assert inspect_engine(wanted.path).layers == metadata.layers
    checked = check_engine(
        wanted.path,
        runtime="tensorrt-rtx",
        runtime_version=load_runtime("tensorrt-rtx").version,
        compute_capability=capability,
        precision=precision,
        max_batch_size=64,
        onnx=source,
    )
    assert checked == metadata


def _assert_layers(metadata: EngineMetadata, source: Path) -> None:
    """Every convolution of the ONNX file is in the engine and in its type; types change at the borders only."""
    report = EngineReport(metadata.layers)
    graph = onnx.load(source).graph
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    expected = {"fp32": "Float", "fp16": "Half", "int8": "Int8"}[metadata.precision]
    # Layers that INT8 leaves in FP32 have weights without QuantizeLinear and DequantizeLinear.
    dequantized = {node.output[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    in_fp32 = sum(node.input[1] not in dequantized for node in convolutions) if metadata.precision == "int8" else 0
    assert in_fp32 <= 3
    types = report.convolution_types()
    assert types[expected] == CONVOLUTIONS - in_fp32
    assert types.total() == CONVOLUTIONS
    assert set(types) <= ({"Int8", "Float"} if in_fp32 else {expected})
    in_onnx = {node.name for node in convolutions}
    assert {name for layer in report.convolutions for name in layer.onnx_nodes} >= in_onnx
    assert unexpected_layers(metadata) == []
    conversions = [layer for layer in metadata.layers if layer.converts]
    if metadata.precision == "int8":
        # Between convolutions TensorRT-RTX quantises FP32 sums; what becomes FP32 is the input of an FP32 layer: the
        # image for the first one, a map for others.
        others = [layer for layer in conversions if "Int8" not in {tensor.dtype for tensor in layer.outputs}]
        changes = [(layer.inputs[0].dtype, layer.outputs[0].dtype) for layer in others]
        after_int8 = dequantized | {
            node.output[0] for node in graph.node if node.op_type == "MaxPool" and node.input[0] in dequantized
        }
        maps = {node.input[0] for node in convolutions if node.input[1] not in dequantized} & after_int8
        assert sorted(changes) == [("Int8", "Float")] * len(maps) + [("UInt8", "Float")]
        return
    assert report.inner_conversions(BORDER) == ()
    changes = [(layer.inputs[0].dtype, layer.outputs[0].dtype) for layer in conversions]
    assert (
        sorted(changes)
        == {
            "fp32": [("UInt8", "Float")],
            "fp16": [("Half", "Float"), ("Half", "Float"), ("UInt8", "Half")],
        }[metadata.precision]
    )


@needs_rtx
@pytest.mark.parametrize("tf32", [False, True])
def test_tf32_and_level_reach_the_builder(buildable: Engine, tf32: bool) -> None:
    settings = buildable.settings.model_copy(
        update={"tf32": tf32, "workspace_mib": 1536, "builder_optimization_level": 2}
    )
    with captured_log() as log:
        metadata = build_engine(replace(buildable, settings=settings))
    configuration = next(message for message in log.messages if "Building engine with configuration" in message)
    flags = re.search(r"Flags +\| \[(.*?)\]", configuration)
    assert flags is not None
    assert ("TF32" in flags[1]) == tf32
    assert "STRONGLY_TYPED" in flags[1]
    assert "WORKSPACE: 1536.00 MiB" in configuration
    assert (metadata.tf32, metadata.builder_optimization_level) == (tf32, 2)


@needs_rtx
def test_unreadable_layers_do_not_lose_the_engine(
    buildable: Engine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(engine.BuilderLog, "layer_text", lambda self: "Name: x, LayerType: new")
    metadata = build_engine(buildable)
    assert metadata.layers == ()
    assert "its layers are not known" in caplog.text
    assert unexpected_layers(metadata) == ["convolutions: got none, expected all in Half"]
    assert inspect_engine(buildable.path).layers == ()


@needs_rtx
@pytest.mark.skipif(find_gpu() is not None, reason="with a GPU the engine may load")
def test_asking_an_engine_for_its_layers_needs_a_gpu(buildable: Engine) -> None:
    build_engine(buildable)
    with pytest.raises(EngineError, match=r"tensorrt-rtx cannot load it here: .*cudaError"):
        engine._inspector_text(load_runtime("tensorrt-rtx"), buildable.path.read_bytes())


@needs_rtx
@pytest.mark.slow
def test_command_prints_the_layers(run_script: Callable[..., Any], onnx_fp32: Path, tmp_path: Path) -> None:
    arguments = ("--runtime", "tensorrt-rtx", "--compute-capability", "8.9", "--output", "my.plan", "--onnx", onnx_fp32)
    result = run_script("tools/build_engine.py", "--precision", "fp16", *arguments)
    assert result.returncode == 0, result.stderr
    first, header, *rows = result.stdout.splitlines()
    assert first.startswith("my.plan: fp16 for compute capability 8.9, batch 1/8/64, tensorrt-rtx ")
    assert header.split() == ["layers", "kind", "reads", "weights", "writes"]
    cells = [row.split() for row in rows]
    assert sum(int(row[0]) for row in cells if row[2:] == ["Half", "Half", "Half"]) == CONVOLUTIONS
    assert sorted(path.name for path in tmp_path.iterdir()) == ["my.engine.json", "my.plan"]


# --- FP16 -------------------------------------------------------------------------------------------------------------


def test_half_is_close_to_fp32(onnx_fp32: Path, tmp_path: Path) -> None:
    path = tmp_path / "half.onnx"
    onnx.save(to_half(onnx.load(onnx_fp32)), path)
    dtypes = {name: np.dtype(kind) for name, kind in (("image", "uint8"), ("loc", "float32"), ("conf", "float32"))}
    check_interface(
        path,
        inputs={"image": (dtypes["image"], (None, 300, 300, 3))},
        outputs={"loc": (dtypes["loc"], (None, 4, 8732)), "conf": (dtypes["conf"], (None, 81, 8732))},
    )
    images = {"image": photographs(None, 2)}
    check_values(run_onnx(onnx_fp32, images), run_onnx(path, images), FP16_MAX_RELATIVE_ERROR, "FP16")


def test_half_casts_at_the_borders_only(onnx_fp32: Path) -> None:
    source = onnx.load(onnx_fp32)
    before = source.SerializeToString()
    model = to_half(source)
    assert source.SerializeToString() == before
    casts = [list(node.output) for node in model.graph.node if node.op_type == "Cast"]
    assert len(casts) == 4  # the image to FP32; normalised, to half; two outputs back
    assert casts[-2:] == [["loc"], ["conf"]]
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    assert types["mean"] == types["scale"] == TensorProto.FLOAT
    assert sum(kind == TensorProto.FLOAT16 for kind in types.values()) == 2 * CONVOLUTIONS


@pytest.mark.parametrize("value", [70_000, np.nan])
def test_half_refuses_weights_beyond_it(onnx_fp32: Path, value: float) -> None:
    model = onnx.load(onnx_fp32)
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == "network.loc.0.bias")
    array = numpy_helper.to_array(tensor).copy()
    array[3] = value
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    with pytest.raises(ExportError, match=r"network\.loc\.0\.bias.*serve FP32"):
        to_half(model)
