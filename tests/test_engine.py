"""TensorRT engines: built for real with TensorRT-RTX, which needs no GPU to build, and refused where they do not fit.

Nothing here runs an engine: that takes a GPU.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from ssd_triton.common.errors import ConfigError, ExportError, UserError
from ssd_triton.common.files import ROOT, sha256_of
from ssd_triton.config import Config, load_config
from ssd_triton.detector.engines import build as engine
from ssd_triton.detector.engines.build import (
    EngineRequest,
    batch_profile,
    build_engine,
    serving_config,
    unexpected_layers,
)
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
from ssd_triton.detector.engines.runtime import Gpu, captured_log, find_gpu, load_runtime, run_cancellable
from ssd_triton.detector.export.compare import check_interface, check_values, run_onnx
from ssd_triton.detector.export.half import to_half
from ssd_triton.detector.export.samples import photographs
from ssd_triton.serving.repository.build import ensure_built
from tests.conftest import assert_one_line_error, long

CAPABILITIES = ("8.6", "8.9", "12.0")
PRECISIONS = ("fp32", "fp16", "int8")
CONVOLUTIONS = 65
FP16_MAX_RELATIVE_ERROR = 5e-3
"""Of FP16 variants against FP32, both outputs."""
OLD = b"the engine of yesterday"

needs_rtx = pytest.mark.skipif(
    find_spec("tensorrt_rtx") is None, reason="tensorrt_rtx is not installed: pip install -e '.[tensorrt-rtx]'"
)


@pytest.fixture(scope="module")
def onnx_int8(config: Config) -> Path:
    """The file that ONNX Runtime and OpenVINO serve."""
    ensure_built(config, lambda line: None, only=["onnx_int8"])
    return config.model_repository / "ssd_detector/1/onnx_int8.onnx"


@pytest.fixture(scope="module")
def onnx_fp32(onnx_int8: Path) -> Path:
    """What INT8 was made from, hence built before it."""
    return onnx_int8.with_name("onnx_fp32.onnx")


@pytest.fixture
def request_for(config: Config, onnx_fp32: Path, tmp_path: Path) -> EngineRequest:
    """A request that builds; tests change one thing of it."""
    return EngineRequest(
        precision="fp16",
        onnx=onnx_fp32,
        plan=tmp_path / "engines/detector.plan",
        runtime="tensorrt-rtx",
        compute_capability="8.9",
        settings=config.tensorrt,
        model_config=serving_config(config.model_repository, "fp16"),
    )


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
def test_every_precision_builds_for_every_gpu(
    request_for: EngineRequest, onnx_fp32: Path, onnx_int8: Path, precision: Any, capability: str
) -> None:
    source = onnx_int8 if precision == "int8" else onnx_fp32
    request = replace(request_for, precision=precision, onnx=source, compute_capability=capability)
    metadata = build_engine(request)
    assert metadata.plan_sha256 == sha256_of(request.plan)
    assert metadata.onnx_sha256 == sha256_of(source)
    assert (metadata.compute_capability, metadata.precision) == (capability, precision)
    assert str(metadata.profile) == "1/8/64"
    # Weights take 4, 2 and 1 byte each; 22.9 million of them.
    bytes_per_weight = request.plan.stat().st_size / 22.9e6
    assert bytes_per_weight == pytest.approx({"fp32": 4, "fp16": 2, "int8": 1}[precision], rel=0.4)
    _assert_layers(metadata, source)
    assert inspect_engine(request.plan).layers == metadata.layers
    checked = check_engine(
        request.plan,
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
    # Layers that INT8 leaves in FP32 read no pair of QuantizeLinear and DequantizeLinear.
    dequantized = {node.output[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    in_fp32 = sum(node.input[0] not in dequantized for node in convolutions) if metadata.precision == "int8" else 0
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
        # Between convolutions TensorRT-RTX quantises FP32 sums; the image becomes FP32, since its first layer is.
        others = [layer for layer in conversions if "Int8" not in {tensor.dtype for tensor in layer.outputs}]
        assert [(layer.inputs[0].dtype, layer.outputs[0].dtype) for layer in others] == [("UInt8", "Float")]
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
def test_tf32_and_level_reach_the_builder(request_for: EngineRequest, tf32: bool) -> None:
    settings = request_for.settings.model_copy(
        update={"tf32": tf32, "workspace_mib": 1536, "builder_optimization_level": 2}
    )
    with captured_log() as log:
        metadata = build_engine(replace(request_for, settings=settings))
    configuration = next(message for message in log.messages if "Building engine with configuration" in message)
    flags = re.search(r"Flags +\| \[(.*?)\]", configuration)
    assert flags is not None
    assert ("TF32" in flags[1]) == tf32
    assert "STRONGLY_TYPED" in flags[1]
    assert "WORKSPACE: 1536.00 MiB" in configuration
    assert (metadata.tf32, metadata.builder_optimization_level) == (tf32, 2)


@needs_rtx
def test_unreadable_layers_do_not_lose_the_engine(
    request_for: EngineRequest, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(engine.BuilderLog, "layer_text", lambda self: "Name: x, LayerType: new")
    metadata = build_engine(request_for)
    assert metadata.layers == ()
    assert "its layers are not known" in caplog.text
    assert unexpected_layers(metadata) == ["convolutions: got none, expected all in Half"]
    assert inspect_engine(request_for.plan).layers == ()


@needs_rtx
@pytest.mark.skipif(find_gpu() is not None, reason="with a GPU the engine may load")
def test_asking_an_engine_for_its_layers_needs_a_gpu(request_for: EngineRequest) -> None:
    build_engine(request_for)
    with pytest.raises(EngineError, match=r"tensorrt-rtx cannot load it here: .*cudaError"):
        engine._inspector_text(load_runtime("tensorrt-rtx"), request_for.plan.read_bytes())


@needs_rtx
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


# --- Refused builds ---------------------------------------------------------------------------------------------------


@needs_rtx
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"compute_capability": "9.0"}, ["does not build for compute capability 9.0", "8.6, 8.9, 12.0"]),
        ({"compute_capability": "99.9"}, ["compute capability 99.9", "expected one of"]),
        ({"compute_capability": "ampere"}, ["unknown compute capability 'ampere'", "such as 8.9"]),
        ({"compute_capability": "8"}, ["unknown compute capability '8'"]),
        ({"compute_capability": "6.1"}, ["6.1 has no FP16", "--precision fp32"]),
        ({"compute_capability": None}, ["found no GPU", "--compute-capability"]),
        ({"onnx": "nowhere.onnx"}, ["cannot read", "nowhere.onnx", "tools/build_repository.py"]),
        ({"onnx": "text.onnx"}, ["text.onnx is not an ONNX file", "tools/build_repository.py"]),
        ({"onnx": "empty.onnx"}, ["input 'image': got nothing", "output 'conf': got nothing"]),
        ({"onnx": "postprocess"}, ["interface", "input 'image': got nothing", "input 'loc'"]),
        ({"precision": "int8"}, ["is FP32", "QuantizeLinear", "--onnx"]),
        ({"onnx": "int8", "precision": "fp32"}, ["is INT8", "expected the FP32 file", "--onnx"]),
        ({"onnx": "transposed"}, ["tensorrt-rtx cannot build", "transposed.onnx"]),
    ],
)
def test_refused_builds_leave_the_old_engine(
    request_for: EngineRequest, wrong_onnx: Callable[[str], Path], change: dict[str, Any], words: list[str]
) -> None:
    if "onnx" in change:
        change = {**change, "onnx": wrong_onnx(change["onnx"])}
    request = replace(request_for, **change)
    request.plan.parent.mkdir()
    request.plan.write_bytes(OLD)
    with pytest.raises(UserError) as error:
        build_engine(request)
    message = str(error.value)
    assert "\n" not in message
    for word in words:
        assert word in message
    assert request.plan.read_bytes() == OLD
    assert list(request.plan.parent.iterdir()) == [request.plan]


@pytest.fixture
def wrong_onnx(
    onnx_fp32: Path, onnx_int8: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], Path]:
    """Files that are no FP32 detector, by name; there is no GPU, whatever the machine has."""
    monkeypatch.setattr(engine, "find_gpu", lambda: None)

    def make(name: str) -> Path:
        if name == "int8":
            return onnx_int8
        if name == "postprocess":
            return onnx_fp32.parents[2] / "ssd_postprocess/1/model.onnx"
        if name == "transposed":
            return _transposed_before_the_cast(onnx_fp32, tmp_path)
        (tmp_path / "text.onnx").write_text("this is no model")
        (tmp_path / "empty.onnx").touch()
        return tmp_path / name

    return make


def _transposed_before_the_cast(onnx_fp32: Path, folder: Path) -> Path:
    """Valid ONNX that TensorRT refuses: a UINT8 input that does not go straight into a Cast."""
    model = onnx.load(onnx_fp32)
    cast, transpose = model.graph.node[:2]
    transpose.input[0], cast.input[0] = "image", "transposed"
    cast.output[0] = transpose.output[0]
    transpose.output[0] = "transposed"
    nodes = [transpose, cast, *model.graph.node[2:]]
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:], model.graph.value_info[:]
    model.graph.node.extend(copies)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, folder / "transposed.onnx")
    return folder / "transposed.onnx"


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ((1, 8, 32), ["largest batch is 32", "expected 64", "max_batch_size", "tensorrt.profile.max in config.yml"]),
        ((1, 8, 128), ["largest batch is 128", "expected 64"]),
        ((2, 8, 64), ["2/8/64", "1 <= opt <= max", "config.yml"]),
        ((1, 65, 64), ["1/65/64", "1 <= opt <= max"]),
    ],
)
def test_profile_must_serve_what_triton_sends(config: Config, sizes: tuple[int, int, int], words: list[str]) -> None:
    profile = config.tensorrt.profile.model_copy(update=dict(zip(("min", "opt", "max"), sizes, strict=True)))
    settings = config.tensorrt.model_copy(update={"profile": profile})
    with pytest.raises(EngineError) as error:
        batch_profile(settings, serving_config(config.model_repository, "fp32"))
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        (
            "builder_optimization_level: 3",
            "builder_optimization_level: 9",
            ["tensorrt.builder_optimization_level"],
        ),
        ("workspace_mib: 4096", "workspace_mb: 4096", ["tensorrt.workspace_mb", "did you mean 'workspace_mib'?"]),
        ("{min: 1,", "{min: 0,", ["tensorrt.profile.min", "got 0"]),
    ],
)
def test_configuration_is_checked(tmp_path: Path, before: str, after: str, words: list[str]) -> None:
    text = (ROOT / "config.yml").read_text(encoding="utf-8")
    assert before in text
    (tmp_path / "config.yml").write_text(text.replace(before, after), encoding="utf-8")
    with pytest.raises(ConfigError) as error:
        load_config(tmp_path / "config.yml")
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize(
    ("gpu", "words"),
    [
        (None, ["found none", "--runtime tensorrt-rtx"]),
        (Gpu("A GPU", "9.0"), ["A GPU of compute capability 9.0", "got --compute-capability 8.9"]),
    ],
)
def test_tensorrt_builds_for_its_own_gpu(
    request_for: EngineRequest, monkeypatch: pytest.MonkeyPatch, gpu: Gpu | None, words: list[str]
) -> None:
    monkeypatch.setattr(engine, "load_runtime", lambda name: engine.Runtime("tensorrt", SimpleNamespace(), "10.13"))
    monkeypatch.setattr(engine, "find_gpu", lambda: gpu)
    with pytest.raises(EngineError) as error:
        build_engine(replace(request_for, runtime="tensorrt"))
    for word in words:
        assert word in str(error.value)


@pytest.mark.skipif(find_spec("tensorrt") is not None, reason="tensorrt is installed")
def test_tensorrt_that_is_not_installed(run_main: Callable[..., Any], onnx_fp32: Path) -> None:
    result = run_main("tools/build_engine.py", "--onnx", onnx_fp32, "--output", "x.plan", "--runtime", "tensorrt")
    assert_one_line_error(result, "tensorrt cannot be imported", ".[tensorrt]", "--runtime tensorrt-rtx")


@pytest.mark.parametrize(("flag", "value"), [("--workspace-mib", "0"), ("--builder-optimization-level", "6")])
def test_flags_are_checked(run_main: Callable[..., Any], flag: str, value: str) -> None:
    result = run_main("tools/build_engine.py", flag, value)
    assert result.returncode == 2
    assert flag in result.stderr


# --- Interrupted ------------------------------------------------------------------------------------------------------


@needs_rtx
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_build_leaves_the_old_engine(tmp_path: Path, onnx_fp32: Path, number: signal.Signals) -> None:
    (tmp_path / "my.plan").write_bytes(OLD)
    command = [sys.executable, str(ROOT / "tools/build_engine.py"), "--precision", "fp32", "--onnx", str(onnx_fp32)]
    command += ["--runtime", "tensorrt-rtx", "--compute-capability", "8.9", "--output", "my.plan"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert process.stderr.readline().startswith("building my.plan for compute capability 8.9: tensorrt-rtx ")
        process.send_signal(number)
        assert "Traceback" not in process.stderr.read()
        assert process.wait(timeout=60) == 130
    assert (tmp_path / "my.plan").read_bytes() == OLD
    assert [path.name for path in tmp_path.iterdir()] == ["my.plan"]


def test_an_interrupt_stops_the_builder() -> None:
    class Monitor:
        """Stands for ``IProgressMonitor``."""

    stopped = threading.Event()

    def build(monitor: Any) -> None:
        time.sleep(0.2)  # until the main thread waits
        signal.raise_signal(signal.SIGINT)
        while monitor.step_complete("a phase", 1):
            time.sleep(0.01)
        stopped.set()

    with pytest.raises(KeyboardInterrupt):
        run_cancellable(SimpleNamespace(IProgressMonitor=Monitor), build)  # type: ignore[arg-type]
    assert stopped.wait(timeout=5)


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
    for word in ("build it again: python tools/build_engine.py --precision", "detector.plan", *words):
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
        for word in ("tools/build_engine.py", *words):
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
