"""The container's entry point, outside a container: real builds, real signals, and what cannot start."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from filelock import FileLock

from ssd_triton.common.errors import UserError
from ssd_triton.common.files import PART, ROOT
from ssd_triton.config import Config
from ssd_triton.detector.engines.metadata import check_engine
from ssd_triton.serving.container.entry_point import choose_variant, prepare
from ssd_triton.serving.container.linked_repository import link_repository
from ssd_triton.serving.repository.build import ensure_built
from tests.conftest import assert_one_line_error
from tests.serving.entrypoint import starting

pytestmark = pytest.mark.slow

Start = Callable[..., subprocess.Popen[str]]
START_TIMEOUT_S = 60
BUILD_TIMEOUT_S = 120
CAPABILITY = "8.9"
BUILD = ["--variant", "tensorrt_int8", "--runtime", "tensorrt-rtx", "--compute-capability", CAPABILITY, "--build-only"]
"""The quickest engine, for a GPU that is not there, and nothing else."""


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    with starting(tmp_path_factory.getbasetemp()) as run:
        yield run


def read_until(process: subprocess.Popen[str], word: str) -> None:
    """Read stderr up to the line that begins with a word."""
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if line.startswith(word):
            return
    raise AssertionError(f"ended without '{word}': {''.join(lines)}")


def finish(process: subprocess.Popen[str]) -> list[str]:
    """Wait for a success; the steps that it reported since they were last read."""
    _, errors = process.communicate(timeout=BUILD_TIMEOUT_S)
    assert process.returncode == 0, errors
    return [line.split()[0] for line in errors.splitlines() if line.strip().endswith(")") or "current" in line]


def check(plan: Path, config: Config) -> None:
    """The engine is whole, and fits."""
    import tensorrt_rtx

    check_engine(
        plan.resolve(),
        runtime="tensorrt-rtx",
        runtime_version=tensorrt_rtx.__version__,
        precision="int8",
        max_batch_size=64,
        compute_capability=CAPABILITY,
        onnx=config.model_repository / "ssd_detector/1/onnx_int8.onnx",
    )


@pytest.fixture(scope="module")
def contended(start: Start, config: Config, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[list[str]]]:
    """A cache after one builder was killed while two others waited for it; the plan, and the steps of those two."""
    pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed")
    ensure_built(config, lambda line: None, only=["onnx_int8"])
    cache = tmp_path_factory.mktemp("contended") / "cache"
    killed = start(cache, *BUILD)
    read_until(killed, "building")
    waiting = [start(cache, *BUILD) for _ in range(2)]
    for process in waiting:
        read_until(process, "waiting")
    assert list(cache.glob("*/*.plan")) == []
    [folder] = [path for path in cache.iterdir() if path.is_dir()]
    (folder / ".tensorrt_int8.1.part.plan").write_bytes(b"half an engine")
    killed.kill()
    steps = [finish(process) for process in waiting]
    [plan] = cache.glob("*/*.plan")
    return plan, steps


@pytest.fixture
def cache(contended: tuple[Path, list[list[str]]], tmp_path: Path) -> Path:
    """A copy of the cache that a test may change."""
    shutil.copytree(contended[0].parents[1], tmp_path / "cache")
    return tmp_path / "cache"


@pytest.fixture
def own(config: Config, tmp_path: Path) -> Callable[..., Config]:
    """The configuration with folders of this test, TensorRT for RTX and other values of ``container``."""

    def change(**container: object) -> Config:
        folders = {"engine_cache": tmp_path / "cache", "runtime_dir": tmp_path / "run"}
        values = {
            "container": config.container.model_copy(update={**folders, **container}),
            "tensorrt": config.tensorrt.model_copy(update={"runtime": "tensorrt-rtx"}),
        }
        return config.model_copy(update=values)

    return change


@pytest.mark.slow
def test_a_killed_builder_leaves_neither_lock_nor_half_an_engine(
    contended: tuple[Path, list[list[str]]], config: Config
) -> None:
    plan, _ = contended
    check(plan, config)
    assert list(plan.parent.glob(PART)) == []


def test_only_one_of_two_starters_builds(contended: tuple[Path, list[list[str]]]) -> None:
    plan, steps = contended
    assert sorted(steps) == [["building", "built"], ["current"]]
    links = list(plan.parents[2].glob("run*/model_repository/ssd_detector/1/tensorrt_int8.plan"))
    assert [link.resolve() for link in links] == [plan, plan]


@pytest.mark.slow
def test_an_engine_that_does_not_fit_is_built_again(own: Callable[..., Config], cache: Path, config: Config) -> None:
    [metadata] = cache.glob("*/*.engine.json")
    values = json.loads(metadata.read_text(encoding="utf-8"))
    metadata.write_text(json.dumps({**values, "runtime_version": "1.0.0"}), encoding="utf-8")
    steps: list[str] = []
    prepared = prepare(own(variant="tensorrt_int8", engine_cache=cache), steps.append, compute_capability=CAPABILITY)
    assert [step.split()[0] for step in steps] == ["building", "built"]
    assert "runtime version: got 1.0.0" in steps[0]
    check(prepared.repository / "ssd_detector/1/tensorrt_int8.plan", config)


def test_waiting_for_a_builder_can_be_ended(start: Start, cache: Path) -> None:
    [plan] = cache.glob("*/*.plan")
    with FileLock(plan.parent.with_name(plan.parent.name + ".lock"), preserve_lock_file=True):
        stopped, given_up = start(cache, *BUILD), start(cache, *BUILD, "--builder-timeout-s", 0.5)
        read_until(stopped, "waiting")
        begin_s = time.monotonic()
        stopped.terminate()
        stopped.communicate(timeout=10)
        assert stopped.returncode == 130
        assert time.monotonic() - begin_s < 5
        _, errors = given_up.communicate(timeout=START_TIMEOUT_S)
    result = subprocess.CompletedProcess(given_up.args, given_up.returncode, "", errors)
    assert_one_line_error(result, "has been building", "more than 0.5 s", "--builder-timeout-s")


# --- what cannot start ------------------------------------------------------------------------------------------------


def test_no_gpu_is_said_in_one_line(run_main: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    result = run_main("tools/container_entrypoint.py", "--variant", "tensorrt_fp16")
    assert_one_line_error(result, "no GPU here", "--variant onnx_int8")


def test_an_unknown_variant_is_refused(own: Callable[..., Config]) -> None:
    with pytest.raises(UserError, match="unknown variant 'onnx_int4'"):
        prepare(own(variant="onnx_int4"), print)


def test_a_missing_artefact_is_named(own: Callable[..., Config], config: Config, tmp_path: Path) -> None:
    link_repository(config.model_repository, tmp_path / "repository", None)
    (tmp_path / "repository/ssd_detector/1/onnx_fp32.onnx").unlink(missing_ok=True)
    lacking = own(variant="onnx_fp32").model_copy(update={"model_repository": tmp_path / "repository"})
    with pytest.raises(UserError, match=r"onnx_fp32\.onnx is missing.*ssd-triton build"):
        prepare(lacking, print)


def test_a_missing_post_processing_is_named_before_an_engine_is_built(
    own: Callable[..., Config], tmp_path: Path
) -> None:
    skip = shutil.ignore_patterns("*.pt", "*.onnx", "*.plan")
    shutil.copytree(ROOT / "model_repository", tmp_path / "repository", ignore=skip)
    lacking = own(variant="tensorrt_fp16").model_copy(update={"model_repository": tmp_path / "repository"})
    steps: list[str] = []
    with pytest.raises(
        UserError, match=r"ssd_postprocess/1/model\.pt is missing, which variant 'tensorrt_fp16' serves"
    ):
        prepare(lacking, steps.append, compute_capability=CAPABILITY)
    assert steps == []


def test_an_unwritable_cache_is_named(own: Callable[..., Config], config: Config, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed")
    ensure_built(config, lambda line: None, only=["onnx_int8"])
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(UserError, match=r"cannot use the engine cache .*Not a directory.*--engine-cache"):
        prepare(own(variant="tensorrt_int8", engine_cache=tmp_path / "file"), print, compute_capability=CAPABILITY)


def test_a_named_variant_is_kept_and_auto_finds_the_cpu() -> None:
    assert choose_variant("onnx_fp32", "onnx_int8") == "onnx_fp32"
    assert choose_variant("auto", "onnx_int8") in ("onnx_int8", "tensorrt_fp16")
