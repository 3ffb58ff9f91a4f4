"""Builds of engines that are refused or interrupted leave the old engine."""

from __future__ import annotations

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

import onnx
import pytest

from ssd_triton.common.errors import ConfigError, UserError
from ssd_triton.common.files import ROOT
from ssd_triton.common.machine import Gpu
from ssd_triton.config import Config, load_config
from ssd_triton.detector.engines import build as engine
from ssd_triton.detector.engines.build import batch_profile, build_engine
from ssd_triton.detector.engines.engine import Engine
from ssd_triton.detector.engines.errors import EngineError
from ssd_triton.detector.engines.runtime import run_cancellable
from tests.conftest import assert_one_line_error
from tests.detector.engines import OLD, needs_rtx
from tests.interruptible import Interruptible, sigint

pytestmark = pytest.mark.slow

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
        ({"onnx": "nowhere.onnx"}, ["cannot read", "nowhere.onnx", "ssd-triton build"]),
        ({"onnx": "text.onnx"}, ["text.onnx is not an ONNX file", "ssd-triton build"]),
        ({"onnx": "empty.onnx"}, ["input 'image': got nothing", "output 'conf': got nothing"]),
        ({"onnx": "postprocess"}, ["interface", "input 'image': got nothing", "input 'loc'"]),
        ({"precision": "int8"}, ["is FP32", "QuantizeLinear", "--onnx"]),
        ({"onnx": "int8", "precision": "fp32"}, ["is INT8", "expected the FP32 file", "--onnx"]),
        ({"onnx": "transposed"}, ["tensorrt-rtx cannot build", "transposed.onnx"]),
    ],
)
def test_refused_builds_leave_the_old_engine(
    buildable: Engine, wrong_onnx: Callable[[str], Path], change: dict[str, Any], words: list[str]
) -> None:
    if "onnx" in change:
        change = {**change, "onnx": wrong_onnx(change["onnx"])}
    wanted = replace(buildable, **change)
    wanted.path.parent.mkdir()
    wanted.path.write_bytes(OLD)
    with pytest.raises(UserError) as error:
        build_engine(wanted)
    message = str(error.value)
    assert "\n" not in message
    for word in words:
        assert word in message
    assert wanted.path.read_bytes() == OLD
    assert list(wanted.path.parent.iterdir()) == [wanted.path]


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
        batch_profile(settings, 64)
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("builder_optimization_level: 9", ["tensorrt.builder_optimization_level"]),
        ("workspace_mb: 4096", ["tensorrt.workspace_mb", "did you mean 'tensorrt.workspace_mib'?"]),
        ("profile: {min: 0}", ["tensorrt.profile.min", "got 0"]),
    ],
)
def test_configuration_is_checked(tmp_path: Path, text: str, words: list[str]) -> None:
    (tmp_path / "config.yml").write_text(f"tensorrt: {{{text}}}", encoding="utf-8")
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
    buildable: Engine, monkeypatch: pytest.MonkeyPatch, gpu: Gpu | None, words: list[str]
) -> None:
    monkeypatch.setattr(engine, "load_runtime", lambda name: engine.Runtime("tensorrt", SimpleNamespace(), "10.13"))
    monkeypatch.setattr(engine, "find_gpu", lambda: gpu)
    with pytest.raises(EngineError) as error:
        build_engine(replace(buildable, settings=buildable.settings.model_copy(update={"runtime": "tensorrt"})))
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
    with Interruptible(command, cwd=tmp_path, stderr=subprocess.PIPE) as process:
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

    with pytest.raises(KeyboardInterrupt), sigint(signal.default_int_handler):
        run_cancellable(SimpleNamespace(IProgressMonitor=Monitor), build)  # type: ignore[arg-type]
    assert stopped.wait(timeout=5)
