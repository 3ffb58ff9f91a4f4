"""Engines are refused where they do not fit; reports of their layers."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ssd_triton.common.files import ROOT, sha256_of
from ssd_triton.common.machine import find_gpu
from ssd_triton.detector.engines.build import unexpected_layers
from ssd_triton.detector.engines.errors import EngineError
from ssd_triton.detector.engines.inspection import EngineReport, parse_layers
from ssd_triton.detector.engines.metadata import (
    BatchProfile,
    EngineMetadata,
    check_engine,
    inspect_engine,
    metadata_path,
)
from ssd_triton.detector.engines.onnx_source import BORDER
from tests.detector.engines import OLD

# --- Loading ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def plan(tmp_path: Path, onnx_fp32: Path) -> Path:
    """A stand-in for an engine, with metadata that belong to it."""
    path = tmp_path / "detector.plan"
    path.write_bytes(OLD)
    metadata = EngineMetadata(
        runtime="tensorrt",
        runtime_version="10.13.3",
        gpu_name="NVIDIA L4",
        compute_capability="8.9",
        precision="fp16",
        profile=BatchProfile(min=1, opt=8, max=64),
        tf32=False,
        builder_optimization_level=3,
        workspace_mib=4096,
        onnx=onnx_fp32.name,
        onnx_sha256=sha256_of(onnx_fp32),
        plan_sha256=sha256_of(path),
        built="2026-11-22T00:00:00+00:00",
        build_s=1.0,
        layers=(),
    )
    metadata_path(path).write_text(metadata.model_dump_json())
    return path


def load(plan: Path, **changes: Any) -> EngineMetadata:
    """Check the stand-in as a server on the right machine would, but for the changes."""
    fitting: dict[str, Any] = {
        "runtime": "tensorrt",
        "runtime_version": "10.13.3",
        "compute_capability": "8.9",
        "precision": "fp16",
        "max_batch_size": 64,
        "gpu_name": "NVIDIA L4",
    }
    return check_engine(plan, **{**fitting, **changes})


def test_an_engine_that_fits_is_accepted(plan: Path, onnx_fp32: Path) -> None:
    assert load(plan, onnx=onnx_fp32).built.startswith("2026")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"runtime": "tensorrt-rtx"}, ["runtime: got tensorrt, expected tensorrt-rtx", "--runtime tensorrt-rtx"]),
        ({"runtime_version": "10.14.1"}, ["runtime version: got 10.13.3, expected 10.14.1"]),
        ({"compute_capability": "8.6"}, ["compute capability: got 8.9, expected 8.6"]),
        ({"gpu_name": "NVIDIA A10"}, ["gpu name: got NVIDIA L4, expected NVIDIA A10"]),
        ({"precision": "int8"}, ["precision: got fp16, expected int8", "--precision int8"]),
        ({"max_batch_size": 32}, ["profile: got 1/8/64, expected 1/8/32"]),
        ({"onnx": ROOT / "config.yml"}, ["onnx sha256: got ", sha256_of(ROOT / "config.yml")]),
        ({"onnx": ROOT / "nowhere.onnx"}, ["cannot read the ONNX file", "nowhere.onnx"]),
        (
            {"runtime_version": "11.0", "compute_capability": "12.0"},
            ["got 10.13.3, expected 11.0; compute capability: got 8.9, expected 12.0"],
        ),
    ],
)
def test_mismatch_is_refused(plan: Path, changes: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(EngineError) as error:
        load(plan, **changes)
    message = str(error.value)
    assert "\n" not in message
    for word in ("build it again: ssd-triton engine --precision", "detector.plan", *words):
        assert word in message


def test_an_rtx_engine_fits_every_gpu_of_its_capability(plan: Path) -> None:
    record = json.loads(metadata_path(plan).read_text())
    metadata_path(plan).write_text(json.dumps({**record, "runtime": "tensorrt-rtx", "gpu_name": None}))
    assert load(plan, runtime="tensorrt-rtx", gpu_name="NVIDIA RTX 4090").gpu_name is None


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda plan: plan.unlink(), ["cannot read the engine", "detector.plan"]),
        (lambda plan: plan.write_bytes(b"another"), ["not the file that was built", "got SHA-256"]),
        (lambda plan: metadata_path(plan).unlink(), ["has no metadata", "detector.engine.json"]),
        (lambda plan: metadata_path(plan).write_text("{"), ["not the metadata of an engine", "no JSON"]),
        (lambda plan: metadata_path(plan).write_text("{}"), ["not the metadata of an engine", "runtime_version"]),
    ],
)
def test_damage_is_refused(plan: Path, damage: Callable[[Path], object], words: list[str]) -> None:
    damage(plan)
    for check in (load, inspect_engine):
        with pytest.raises(EngineError) as error:
            check(plan)
        for word in ("ssd-triton engine", *words):
            assert word in str(error.value)


# --- Reports ----------------------------------------------------------------------------------------------------------


LAYERS = """Layers:
Name: in, LayerType: kgen, Inputs: [ { Name: image, Dimensions: [-1,3], Datatype: UInt8, Format: F }], Constants: [], \
Outputs: [ { Name: a, Dimensions: [-1,3], Datatype: Half, Format: F }], TacticName: t, StreamId: 0
Name: go, LayerType: signal, Inputs: [], Constants: [], Outputs: [], TacticName: , StreamId: 0, EventId: 1
Name: c, LayerType: correlation, Inputs: [ { Name: a, Dimensions: [-1], Datatype: Half, Format: F }], Constants: [ \
{ Name: w, Dimensions: [1], Datatype: Float, Format: F }], Outputs: [ { Name: b, Dimensions: [1], Datatype: Half, \
Format: F }], TacticName: t, StreamId: 0, Metadata: [ONNX Layer: conv][ONNX Layer: relu]
Name: cast, LayerType: kgen, Inputs: [ { Name: b, Dimensions: [1], Datatype: Half, Format: F }], Constants: [], \
Outputs: [ { Name: d, Dimensions: [1], Datatype: Float, Format: F }], TacticName: t, StreamId: 0
"""


def test_stray_casts_and_mixed_convolutions_are_found(plan: Path) -> None:
    layers = parse_layers(LAYERS)
    assert [layer.name for layer in layers] == ["in", "c", "cast"]
    assert layers[1].onnx_nodes == ("conv", "relu")
    report = EngineReport(layers)
    assert report.convolution_types() == {"mixed": 1}
    assert [layer.name for layer in report.inner_conversions(BORDER)] == ["cast"]
    problems = unexpected_layers(load(plan).model_copy(update={"layers": layers}))
    assert problems == ["convolutions: got 1 mixed, expected all in Half", "layer 'cast' changes types"]
    assert unexpected_layers(load(plan).model_copy(update={"layers": layers, "precision": "int8"})) == [
        "convolutions: got 1 mixed, expected some in Int8"
    ]


@pytest.mark.parametrize(
    ("text", "words"), [("", "no layers"), ("Name: x, LayerType: kgen, Inputs: none", "cannot read the engine's layer")]
)
def test_unreadable_layers_are_an_error(text: str, words: str) -> None:
    with pytest.raises(EngineError, match=words):
        parse_layers(text)


def test_gpu_is_described_or_absent() -> None:
    gpu = find_gpu()
    assert gpu is None or re.fullmatch(r"\d+\.\d", gpu.compute_capability)
