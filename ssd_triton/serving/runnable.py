"""Runs each variant of the detector on a batch without a server, for comparisons and timing."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ssd_triton.common.arrays import AnyArray
from ssd_triton.common.labels import load_labels
from ssd_triton.config import Config
from ssd_triton.detector.device import Launch
from ssd_triton.detector.engines.runner import EngineRunner
from ssd_triton.detector.network.fused import FusedDetector
from ssd_triton.detector.network.ssd import ServedDetector
from ssd_triton.detector.variants import VARIANTS, Device, Precision, Variant, find_variant
from ssd_triton.detector.weights.file import WeightsFile
from ssd_triton.serving.repository.repository import ModelRepository

Run = Callable[[AnyArray], tuple[AnyArray, AnyArray]]
WARM_UP_RUNS = 3
"""Runs before a CUDA graph is captured: cuDNN chooses its algorithms in the first runs."""


@dataclass(frozen=True)
class RunnableVariant:
    """A variant that runs on the chosen device.

    Attributes:
        name: The variant's name, with a remark if it runs differently than when served.
        precision: The precision that it runs in on this device.
        prepare: Takes input sets, each UINT8 [N, 300, 300, 3], and returns a function that runs one of them.
        run: Runs one batch and returns ``loc`` and ``conf`` as FP32 arrays, for comparisons.
    """

    name: str
    precision: Precision
    prepare: Callable[[Sequence[AnyArray]], Launch]
    run: Run


def runnable_variants(config: Config, detector: ServedDetector, device: torch.device) -> list[RunnableVariant]:
    """Return every variant that runs on a device: PyTorch from the weights, ONNX and TensorRT from built files.

    Raises:
        EngineError: An engine in the repository does not fit this machine's GPU or library.
    """
    found = torch_variants(detector, device)
    repository = ModelRepository(config.model_repository)
    for variant in VARIANTS.values():
        is_served = variant.backend != "pytorch" and variant.name in repository.variants
        if is_served and _kind(device) in variant.precisions and repository.detector_file(variant.name).is_file():
            found.append(_from_file(config, repository, variant, device))
    return found


def runnable_variant(config: Config, name: str, device: torch.device) -> RunnableVariant:
    """Return one variant, as it is served on a device.

    Raises:
        ConfigError: There is no such variant, or it does not run on the device.
        EngineError: Its engine does not fit this machine's GPU or library.
        WeightsError: The weights cannot be read.
    """
    variant = find_variant(name)
    precision = variant.precision_on(_kind(device))
    if variant.backend != "pytorch":
        return _from_file(config, ModelRepository(config.model_repository), variant, device)
    network = WeightsFile(config.weights_path).load_network(config.backbone, len(load_labels(config.labels_path)))
    detector = ServedDetector(network).eval()
    if variant.is_fused:
        on_gpu = device.type == "cuda"
        return _torch_variant(name, precision, _fused(detector, device), device, autotune=on_gpu, graph=on_gpu)
    return _torch_variant(name, precision, _eager_module(detector, precision, device), device)


def torch_variants(detector: ServedDetector, device: torch.device) -> list[RunnableVariant]:
    """Return the PyTorch variants; on a CPU, variants that would be identical there appear once.

    The plain variants run with PyTorch's default settings. On a GPU there are more entries to compare: FP16 with
    cuDNN's autotuner, which PyTorch leaves off by default, and the fused variant with CUDA graphs and without.
    """
    fp32 = _torch_variant("pytorch_fp32", "fp32", _eager_module(detector, "fp32", device), device)
    fused = _fused(detector, device)
    if device.type == "cpu":
        return [fp32, _torch_variant("pytorch_fused_fp16 (FP32 on the CPU)", "fp32", fused, device)]
    fp16 = _eager_module(detector, "fp16", device)
    return [
        fp32,
        _torch_variant("pytorch_fp16", "fp16", fp16, device),
        _torch_variant("pytorch_fp16 autotuned", "fp16", fp16, device, autotune=True),
        _torch_variant("pytorch_fused_fp16 without graph", "fp16", fused, device, autotune=True),
        _torch_variant("pytorch_fused_fp16", "fp16", fused, device, autotune=True, graph=True),
    ]


def _kind(device: torch.device) -> Device:
    return "gpu" if device.type == "cuda" else "cpu"


def _eager_module(detector: ServedDetector, precision: Precision, device: torch.device) -> Any:
    module = copy.deepcopy(detector)
    return (module.half() if precision == "fp16" else module).to(device)


def _fused(detector: ServedDetector, device: torch.device) -> Any:
    # In FP32 on a CPU, weights included, so that a comparison shows the effect of fusing alone.
    dtype = torch.float32 if device.type == "cpu" else torch.float16
    return torch.jit.script(FusedDetector(detector, dtype)).to(device)


def _from_file(config: Config, repository: ModelRepository, variant: Variant, device: torch.device) -> RunnableVariant:
    if variant.execution_provider is None:
        return _engine_variant(config, repository, variant, device)
    return onnx_variant(variant, repository.detector_file(variant.name))


def onnx_variant(variant: Variant, path: Path) -> RunnableVariant:
    """Return a variant that runs in ONNX Runtime on the CPU.

    Args:
        variant: The variant.
        path: An ONNX file.
    """
    import onnxruntime

    # Only OpenVINO has the option device_type, since only OpenVINO has other devices.
    is_openvino = variant.execution_provider == "OpenVINOExecutionProvider"
    options: dict[str, str] = {"device_type": "CPU"} if is_openvino else {}
    session = onnxruntime.InferenceSession(path, providers=[(variant.execution_provider, options)])

    def run(images: AnyArray) -> tuple[AnyArray, AnyArray]:
        loc, conf = session.run(["loc", "conf"], {"image": images})
        return loc, conf

    def prepare(sets: Sequence[AnyArray]) -> Launch:
        return lambda index: run(sets[index % len(sets)])

    return RunnableVariant(variant.name, variant.precision_on("cpu"), prepare, run)


def _engine_variant(
    config: Config, repository: ModelRepository, variant: Variant, device: torch.device
) -> RunnableVariant:
    """Return a variant that runs in TensorRT; the batch sizes named in its configuration run as CUDA graphs."""
    engine = repository.engine(variant.name, config.tensorrt)
    runner = EngineRunner(
        engine.path,
        device,
        precision=engine.precision,
        max_batch_size=engine.max_batch_size,
        graph_batch_sizes=repository.graph_batch_sizes(variant.name),
    )

    def run(images: AnyArray) -> tuple[AnyArray, AnyArray]:
        loc, conf = runner(torch.from_numpy(images).to(device))
        return loc.cpu().numpy(), conf.cpu().numpy()

    def prepare(sets: Sequence[AnyArray]) -> Launch:
        return _eager(runner, [torch.from_numpy(images).to(device) for images in sets])

    return RunnableVariant(variant.name, engine.precision, prepare, run)


def _torch_variant(
    name: str, precision: Precision, module: Any, device: torch.device, *, autotune: bool = False, graph: bool = False
) -> RunnableVariant:
    def model(image: Tensor) -> Any:
        # TF32, on by default for convolutions, would lower the precision of FP32.
        with torch.backends.cudnn.flags(enabled=True, benchmark=autotune, allow_tf32=False):
            return module(image)

    def run(images: AnyArray) -> tuple[AnyArray, AnyArray]:
        with torch.inference_mode():
            loc, conf = model(torch.from_numpy(images).to(device))
        return loc.float().cpu().numpy(), conf.float().cpu().numpy()

    def prepare(sets: Sequence[AnyArray]) -> Launch:
        inputs = [torch.from_numpy(images).to(device) for images in sets]
        return _capture(model, inputs) if graph else _eager(model, inputs)

    return RunnableVariant(name, precision, prepare, run)


def _eager(model: Any, inputs: list[Tensor]) -> Launch:
    def launch(index: int) -> object:
        with torch.inference_mode():
            return model(inputs[index % len(inputs)])

    return launch


def _capture(model: Any, inputs: list[Tensor]) -> Launch:
    """Capture a CUDA graph; every run includes copying the input into the graph's buffer, as when served."""
    static = torch.empty_like(inputs[0])
    side_stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side_stream.wait_stream(torch.cuda.current_stream())
    with torch.inference_mode(), torch.cuda.stream(side_stream):
        for _ in range(WARM_UP_RUNS):
            model(static.copy_(inputs[0]))
    torch.cuda.current_stream().wait_stream(side_stream)
    graph = torch.cuda.CUDAGraph()
    with torch.inference_mode(), torch.cuda.graph(graph):
        outputs = model(static)

    def launch(index: int) -> object:
        static.copy_(inputs[index % len(inputs)])
        graph.replay()
        return outputs

    return launch


def random_images(batch: int, sets: int) -> list[AnyArray]:
    """Make input sets of random pixels, UINT8 [batch, 300, 300, 3]: some kernels run faster on constant inputs."""
    random = np.random.default_rng(batch)
    return [random.integers(0, 256, (batch, 300, 300, 3), np.uint8) for _ in range(sets)]
