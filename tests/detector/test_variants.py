"""The PyTorch variants: fused equals plain, TorchScript equals both; parity and benchmark."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from torch import nn

from ssd_triton.common.errors import ConfigError, ExportError, UserError
from ssd_triton.config import Config
from ssd_triton.config.artefacts import BackboneName
from ssd_triton.detector.device import choose_device
from ssd_triton.detector.export import torchscript
from ssd_triton.detector.export.compare import relative_error
from ssd_triton.detector.export.samples import photographs
from ssd_triton.detector.network.fused import FusedDetector
from ssd_triton.detector.network.ssd import SSD300, ServedDetector, predict
from ssd_triton.detector.variants import (
    BASELINE,
    RECOMMENDED,
    VARIANTS,
    engine_variant,
    variant_name,
    variant_of_file,
    with_sources,
)
from ssd_triton.evaluation.parity import check_parity
from ssd_triton.measuring.benchmark import report, timing
from ssd_triton.measuring.benchmark import run as benchmark_run
from ssd_triton.serving.repository.build import ensure_built
from ssd_triton.serving.runnable import RunnableVariant, runnable_variant, torch_variants
from tests.conftest import long

CPU = torch.device("cpu")


def small_detector(backbone: str = "resnet18", num_labels: int = 5) -> ServedDetector:
    """Random weights and batch-norm statistics, so that nothing cancels by chance."""
    torch.manual_seed(7)
    network = SSD300(backbone, num_labels)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return ServedDetector(network).eval()


def border_images() -> np.ndarray:
    """Black, white and noise: the border shows any mistake in how padding and mean go together."""
    random = np.random.default_rng(3)
    return np.stack(
        [
            np.zeros((300, 300, 3), np.uint8),
            np.full((300, 300, 3), 255, np.uint8),
            random.integers(0, 256, (300, 300, 3), np.uint8),
        ]
    )


DEEP = ("resnet101", "resnet152")  # resnet50's blocks, more often


@pytest.mark.parametrize(
    "backbone", [pytest.param(name, marks=long if name in DEEP else ()) for name in get_args(BackboneName)]
)
@pytest.mark.slow
def test_fused_equals_plain(backbone: str) -> None:
    detector = small_detector(backbone)
    images = border_images()[: 3 if backbone in ("resnet18", "resnet50") else 1]
    for got, expected in zip(
        run(FusedDetector(detector, torch.float32), images), predict(detector, images), strict=True
    ):
        assert got.dtype == np.float32
        assert relative_error(got, expected) < 1e-5


def run(module: nn.Module, images: np.ndarray) -> list[np.ndarray]:
    with torch.inference_mode():
        return [output.numpy() for output in module(torch.from_numpy(images))]


def test_fusing_does_not_change_its_source() -> None:
    detector = small_detector()
    before = {key: value.clone() for key, value in detector.state_dict().items()}
    FusedDetector(detector, torch.float16)
    assert all(torch.equal(value, before[key]) for key, value in detector.state_dict().items())


@pytest.mark.slow
def test_fused_script_takes_every_batch_size(tmp_path: Path) -> None:
    detector = small_detector()
    torchscript.export_fused(detector, tmp_path / "fused.pt", border_images())
    loaded = torch.jit.load(tmp_path / "fused.pt").float()
    for n in (1, 2, 5):
        images = np.repeat(border_images(), 2, axis=0)[:n]
        for got, expected in zip(run(loaded, images), predict(detector, images), strict=True):
            assert relative_error(got, expected) < 5e-3


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_eager_script_keeps_its_dtype(tmp_path: Path, dtype: torch.dtype) -> None:
    torchscript.export_eager(small_detector(), tmp_path / "eager.pt", border_images(), dtype)
    loaded = torch.jit.load(tmp_path / "eager.pt")
    assert {value.dtype for value in loaded.parameters()} == {dtype}


def test_eager_script_keeps_fp32_from_becoming_tf32(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A trace names cuDNN's switches in every convolution, the last of them TF32."""
    # PyTorch's default, which the export must not take over; training in the same process leaves it off.
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    torchscript.export_eager(small_detector(), tmp_path / "eager.pt", border_images(), torch.float32)
    graph = torch.jit.load(tmp_path / "eager.pt").inlined_graph
    convolutions = graph.findAllNodes("aten::_convolution")
    assert convolutions
    assert {list(node.inputs())[-1].toIValue() for node in convolutions} == {False}


@pytest.mark.slow
def test_weights_beyond_fp16_are_refused(tmp_path: Path) -> None:
    """ImageNet's stem has a variance of 83,615; a plain cast would silently kill its channel."""
    detector = small_detector()
    stem = detector.network.feature_extractor.feature_extractor[1]
    assert isinstance(stem, nn.BatchNorm2d) and stem.running_var is not None
    stem.running_var[0] = 83_615
    with pytest.raises(ExportError, match=r"not finite in torch\.float16: .*running_var"):
        torchscript.export_eager(detector, tmp_path / "eager.pt", border_images(), torch.float16)
    # Folded in FP32 first, the same weights are harmless.
    torchscript.export_fused(detector, tmp_path / "fused.pt", border_images())
    assert [path.name for path in tmp_path.iterdir()] == ["fused.pt"]


@pytest.mark.slow
def test_parity_passes_and_fails_as_it_should(config: Config, reference_detector: ServedDetector) -> None:
    images = photographs(None, 1)
    plain = torch_variants(reference_detector, CPU)
    tolerances = config.parity.model_dump()
    assert all(
        one.passed and one.clear_detections > 0 for one in check_parity(reference_detector, plain, images, tolerances)
    )

    def shifted(images_rgb: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        loc, conf = plain[0].run(images_rgb)
        return loc + 0.5, conf

    wrong = RunnableVariant("shifted", "fp32", plain[0].prepare, shifted)
    [result] = check_parity(reference_detector, [wrong], images, tolerances)
    assert not result.passed
    assert result.loc_error > 1e-4
    assert result.conf_error < 1e-4


@pytest.mark.slow
def test_fused_fp16_on_a_cpu_is_judged_as_the_fp32_that_it_is(
    config: Config, reference_detector: ServedDetector
) -> None:
    plain = torch_variants(reference_detector, CPU)
    results = check_parity(reference_detector, plain, photographs(None, 1), config.parity.model_dump())
    assert {one.variant: one.tolerance for one in results} == {
        "pytorch_fp32": config.parity.fp32,
        "pytorch_fused_fp16 (FP32 on the CPU)": config.parity.fp32,
    }


@pytest.mark.parametrize("name", [one.name for one in VARIANTS.values() if "cpu" in one.precisions])
@pytest.mark.slow
def test_every_variant_for_a_cpu_can_be_measured_there(
    config: Config, reference_detector: ServedDetector, name: str
) -> None:
    """As a sweep's ``bare_batch`` does; in the precision that the table names."""
    ensure_built(config, lambda line: None, only=[name])
    images = photographs(None, 1)
    variant = runnable_variant(config, name, CPU)
    assert (variant.name, variant.precision) == (name, VARIANTS[name].precisions["cpu"])
    loc, _ = variant.run(images)
    error = relative_error(loc, predict(reference_detector, images)[0])
    assert error <= (0.2 if variant.precision == "int8" else 1e-4)


def test_a_variant_for_a_gpu_is_refused_on_a_cpu(config: Config) -> None:
    with pytest.raises(ConfigError, match=r"'tensorrt_fp16' does not run on a CPU, expected one of: onnx_fp32, .*"):
        runnable_variant(config, "tensorrt_fp16", CPU)
    with pytest.raises(ConfigError, match=r"unknown variant 'onnx_fp8', expected one of: onnx_fp32"):
        runnable_variant(config, "onnx_fp8", CPU)


def test_the_table_is_whole() -> None:
    for name, variant in VARIANTS.items():
        assert variant.name == name
        assert variant_of_file(variant.file) == variant
        assert (variant.execution_provider is not None) == (variant.backend == "onnxruntime")
        chain = [one.name for one in with_sources([name])]
        assert chain[-1] == name
        assert VARIANTS[chain[0]].source is None
    assert {engine_variant(precision).precision for precision in ("fp32", "fp16", "int8")} == {"fp32", "fp16", "int8"}
    assert all(
        device in VARIANTS[name].precisions for names in (RECOMMENDED, BASELINE) for device, name in names.items()
    )
    assert variant_name("mine.onnx") == "mine.onnx"


@pytest.mark.slow
def test_benchmark_measures_and_reports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.setattr(timing, "_SLICE_S", 0.05)
    detector = small_detector()
    request.addfinalizer(partial(torch.set_num_threads, torch.get_num_threads()))
    # Beside other work, threads that wait for each other slow the large product down more than the rows.
    torch.set_num_threads(1)
    variants = torch_variants(detector, CPU)
    rows = benchmark_run.benchmark(variants, [1, 2], 1, CPU)
    assert [(row.variant, row.batch) for row in rows] == [(one.name, batch) for batch in (1, 2) for one in variants]
    assert all(0 < row.p50_ms <= row.p95_ms <= row.p99_ms and row.runs >= 2 for row in rows)
    limit = benchmark_run.measure_limit(detector, CPU)
    assert all(row.images_per_s < 3 * limit.images_per_s(row.batch, "fp32") for row in rows)
    written = report.write_report(tmp_path, rows, limit, timing.device_environment(CPU), "pytorch_fp32")
    assert sorted(path.name for path in written) == [
        "acceleration.png",
        "benchmark.csv",
        "benchmark.json",
        "images_per_s.png",
    ]
    assert all(path.stat().st_size > 100 for path in written)
    record = json.loads((tmp_path / "benchmark.json").read_text())
    assert record["rows"][0]["images_per_s"] == pytest.approx(1e3 / rows[0].p50_ms, abs=0.01)


@pytest.mark.slow
def test_arithmetic_of_the_published_network(
    reference_detector: ServedDetector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timing, "_SLICE_S", 0.05)
    assert benchmark_run.measure_limit(reference_detector, CPU).gflop_per_image == pytest.approx(40.3, abs=0.1)


def test_a_device_that_is_not_there() -> None:
    for name in ("cuda:99", "tpu9000"):
        with pytest.raises(UserError, match=f"got the device '{name}'"):
            choose_device(name)
