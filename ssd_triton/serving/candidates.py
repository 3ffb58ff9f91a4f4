"""What is measured: each variant of the detector as a function that runs one batch."""

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
from ssd_triton.common.model_names import DETECTOR
from ssd_triton.config import Config
from ssd_triton.detector.engines.runner import EngineRunner
from ssd_triton.detector.network.fused import FusedDetector
from ssd_triton.detector.network.ssd import ServedDetector
from ssd_triton.detector.weights.file import WeightsFile
from ssd_triton.measuring.benchmark.timing import Launch
from ssd_triton.serving.repository.engines import PRECISION_OF, EngineArtefact, engine_artefact

Run = Callable[[AnyArray], tuple[AnyArray, AnyArray]]
WARM_UP_RUNS = 3
"""Before a CUDA graph is captured: cuDNN chooses its algorithms in the first runs."""

_PROVIDERS = {"onnx_fp32": "CPUExecutionProvider", "onnx_int8": "OpenVINOExecutionProvider"}
"""ONNX Runtime's execution providers by variant."""


@dataclass(frozen=True)
class Candidate:
    """A variant that runs on the chosen device."""

    name: str
    prepare: Callable[[Sequence[AnyArray]], Launch]
    """Takes input sets, each UINT8 [N, 300, 300, 3], and gives what runs one of them."""
    run: Run
    """Runs one batch and gives ``loc`` and ``conf`` as FP32 arrays, for comparisons."""


def torch_candidates(detector: ServedDetector, device: torch.device) -> list[Candidate]:
    """The PyTorch variants; FP16 without a GPU is left out, and CUDA graphs belong to the fused one.

    The plain ones run as PyTorch does by itself; with cuDNN's autotuner, a switch that it leaves off, FP16 is measured
    a second time.
    """
    fp32 = copy.deepcopy(detector).to(device)
    fused = torch.jit.script(FusedDetector(detector, torch.float16)).to(device)
    if device.type == "cpu":
        return [
            _torch_candidate("pytorch_fp32", fp32, device),
            _torch_candidate("pytorch_fused_fp16 (FP32 on the CPU)", fused.float(), device),
        ]
    fp16 = copy.deepcopy(detector).half().to(device)
    return [
        _torch_candidate("pytorch_fp32", fp32, device),
        _torch_candidate("pytorch_fp16", fp16, device),
        _torch_candidate("pytorch_fp16 autotuned", fp16, device, autotune=True),
        _torch_candidate("pytorch_fused_fp16 without graph", fused, device, autotune=True),
        _torch_candidate("pytorch_fused_fp16", fused, device, autotune=True, graph=True),
    ]


def runnable_candidates(config: Config, detector: ServedDetector, device: torch.device) -> list[Candidate]:
    """Every variant that runs on a device: PyTorch from the weights, ONNX and TensorRT from what is built.

    Raises:
        EngineError: There is an engine in the repository that does not fit the GPU or the library here.
    """
    found = torch_candidates(detector, device)
    if device.type == "cuda":
        engines = [engine_artefact(config, variant) for variant in PRECISION_OF]
        found += [_engine_candidate(engine, device) for engine in engines if engine.path.is_file()]
    for name, provider in _PROVIDERS.items():
        path = _onnx_path(config, name)
        if device.type == "cpu" and path.is_file():
            found.append(onnx_candidate(name, path, provider))
    return found


def candidate_for(config: Config, variant: str, device: torch.device) -> Candidate:
    """A variant of the repository alone.

    Raises:
        EngineError: Its engine does not fit the GPU or the library here.
    """
    if variant in _PROVIDERS:
        return onnx_candidate(variant, _onnx_path(config, variant), _PROVIDERS[variant])
    if variant in PRECISION_OF:
        return _engine_candidate(engine_artefact(config, variant), device)
    detector = ServedDetector(
        WeightsFile(config.weights_path).load_network(config.backbone, len(load_labels(config.labels_path)))
    )
    found = torch_candidates(detector.eval(), device)
    exact = [candidate for candidate in found if candidate.name == variant]
    return (exact or [candidate for candidate in found if candidate.name.startswith(variant)])[0]


def _onnx_path(config: Config, variant: str) -> Path:
    return config.model_repository / DETECTOR / "1" / f"{variant}.onnx"


def onnx_candidate(name: str, path: Path, provider: str) -> Candidate:
    """A variant for ONNX Runtime on the CPU.

    Args:
        name: Of the variant.
        path: An ONNX file.
        provider: ``CPUExecutionProvider`` or ``OpenVINOExecutionProvider``.
    """
    import onnxruntime

    options: dict[str, str] = {"device_type": "CPU"} if provider.startswith("OpenVINO") else {}
    session = onnxruntime.InferenceSession(path, providers=[(provider, options)])

    def run(images: AnyArray) -> tuple[AnyArray, AnyArray]:
        loc, conf = session.run(["loc", "conf"], {"image": images})
        return loc, conf

    return Candidate(name, lambda sets: lambda index: run(sets[index % len(sets)]), run)


def _engine_candidate(engine: EngineArtefact, device: torch.device) -> Candidate:
    """A variant for TensorRT; the batch sizes that its configuration names run as CUDA graphs."""
    graphs = engine.model_config.optimization.cuda
    runner = EngineRunner(
        engine.path,
        device,
        precision=engine.precision,
        max_batch_size=engine.model_config.max_batch_size,
        graph_batch_sizes=[spec.batch_size for spec in graphs.graph_spec] if graphs.graphs else [],
    )

    def run(images: AnyArray) -> tuple[AnyArray, AnyArray]:
        loc, conf = runner(torch.from_numpy(images).to(device))
        return loc.cpu().numpy(), conf.cpu().numpy()

    def prepare(sets: Sequence[AnyArray]) -> Launch:
        return _eager(runner, [torch.from_numpy(images).to(device) for images in sets])

    return Candidate(engine.path.stem, prepare, run)


def _torch_candidate(
    name: str, module: Any, device: torch.device, *, autotune: bool = False, graph: bool = False
) -> Candidate:
    def model(image: Tensor) -> Any:
        # TF32, on by default for convolutions, would make FP32 another precision.
        with torch.backends.cudnn.flags(enabled=True, benchmark=autotune, allow_tf32=False):
            return module(image)

    def run(images: AnyArray) -> tuple[AnyArray, AnyArray]:
        with torch.inference_mode():
            loc, conf = model(torch.from_numpy(images).to(device))
        return loc.float().cpu().numpy(), conf.float().cpu().numpy()

    def prepare(sets: Sequence[AnyArray]) -> Launch:
        inputs = [torch.from_numpy(images).to(device) for images in sets]
        return _capture(model, inputs) if graph else _eager(model, inputs)

    return Candidate(name, prepare, run)


def _eager(model: Any, inputs: list[Tensor]) -> Launch:
    def launch(index: int) -> object:
        with torch.inference_mode():
            return model(inputs[index % len(inputs)])

    return launch


def _capture(model: Any, inputs: list[Tensor]) -> Launch:
    """A CUDA graph; copying the input into its place is part of every run, as it is when served."""
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
    """Input sets of random pixels, UINT8 [batch, 300, 300, 3]: constant ones would let some kernels run faster."""
    random = np.random.default_rng(batch)
    return [random.integers(0, 256, (batch, 300, 300, 3), np.uint8) for _ in range(sets)]
