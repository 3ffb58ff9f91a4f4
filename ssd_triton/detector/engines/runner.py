"""Running a TensorRT or TensorRT-RTX engine on a GPU, with PyTorch tensors.

The ``tensorrt`` backend of the embedded server, the benchmark and the parity check run engines through this module. The
plan is checked against its metadata before it is loaded. Small batches spend most of their time on launching kernels.
CUDA graphs avoid that. TensorRT-RTX captures them itself; for TensorRT, this module captures one for each requested
batch size. :mod:`ssd_triton.detector.engines.plan` runs the plan itself.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ssd_triton.common.files import relative_to_cwd
from ssd_triton.detector.engines.errors import EngineError
from ssd_triton.detector.engines.metadata import check_engine, read_metadata
from ssd_triton.detector.engines.plan import INPUT, Plan, PlanError
from ssd_triton.detector.engines.runtime import import_runtime
from ssd_triton.detector.variants import Precision

WARM_UP_RUNS = 3
"""In a context's first runs, TensorRT allocates memory and chooses kernels lazily. A graph must not record this."""


@dataclass(frozen=True)
class _Graph:
    """A captured run, with the memory that it reads and writes."""

    graph: Any
    image: Tensor
    outputs: tuple[Tensor, ...]


class EngineRunner:
    """An engine on one GPU.

    Args:
        plan: The engine; its metadata lie beside it.
        device: A CUDA device.
        precision: Precision that the plan must have.
        max_batch_size: The largest batch that the plan must take.
        graph_batch_sizes: Batch sizes to capture as CUDA graphs; a batch between two of them is padded to the larger
            one.

    Raises:
        EngineError: The plan does not fit, its library is not installed, there is no GPU, or the library refuses it.
    """

    def __init__(
        self,
        plan: Path,
        device: torch.device,
        *,
        precision: Precision,
        max_batch_size: int,
        graph_batch_sizes: Sequence[int] = (),
    ) -> None:
        # Checks that need no GPU come first: their errors are easier to understand.
        runtime = import_runtime(read_metadata(plan, precision).runtime)
        expected: dict[str, Any] = {
            "runtime": runtime.name,
            "runtime_version": runtime.version,
            "precision": precision,
            "max_batch_size": max_batch_size,
        }
        check_engine(plan, **expected)
        if device.type != "cuda" or not torch.cuda.is_available():
            raise EngineError(f"{relative_to_cwd(plan)} runs on a GPU, got the device '{device}': set KIND_GPU")
        properties = torch.cuda.get_device_properties(device)
        check_engine(
            plan,
            **expected,
            compute_capability=f"{properties.major}.{properties.minor}",
            gpu_name=properties.name,
        )
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        with torch.cuda.device(device), torch.inference_mode(), _as_engine_errors():
            self._plan = Plan(plan, runtime.name)
            self._context = self._plan.context(own_graphs=runtime.is_rtx and bool(graph_batch_sizes))
            self._graphs = {} if runtime.is_rtx else self._capture(sorted(graph_batch_sizes, reverse=True))

    def __call__(self, image: Tensor) -> tuple[Tensor, ...]:
        """Run one batch.

        Args:
            image: UINT8 [N, 300, 300, 3], RGB, on the engine's device.

        Returns:
            ``loc`` FP32 [N, 4, 8732] and ``conf`` FP32 [N, num_labels, 8732], on the device, in newly allocated memory;
            later work on the current stream waits for them.
        """
        with torch.cuda.device(self._device), torch.inference_mode(), _as_engine_errors():
            caller = torch.cuda.current_stream()
            self._stream.wait_stream(caller)
            with torch.cuda.stream(self._stream):
                outputs = self._run(image.contiguous())
            image.record_stream(self._stream)
            for output in outputs:
                output.record_stream(caller)
            caller.wait_stream(self._stream)
        return outputs

    def _run(self, image: Tensor) -> tuple[Tensor, ...]:
        batch = image.shape[0]
        sizes = sorted(self._graphs)
        index = bisect.bisect_left(sizes, batch)
        if index == len(sizes):
            self._plan.shape(self._context, image)
            return self._plan.run(self._context, image)
        captured = self._graphs[sizes[index]]
        captured.image[:batch].copy_(image)
        captured.graph.replay()
        return tuple(output[:batch].clone() for output in captured.outputs)

    def _capture(self, sizes: Sequence[int]) -> dict[int, _Graph]:
        """Capture a graph for each batch size; the graphs never run at the same time."""
        graphs = {}
        for size in sizes:
            shape = (size, *tuple(self._plan.engine.get_tensor_shape(INPUT))[1:])
            image = torch.randint(0, 256, shape, dtype=torch.uint8, device=self._device)
            torch.cuda.synchronize()
            with torch.cuda.stream(self._stream):
                for _ in range(WARM_UP_RUNS):
                    self._plan(image)
            self._stream.synchronize()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, stream=self._stream):
                outputs = self._plan(image)
            graphs[size] = _Graph(graph, image, outputs)
        return graphs


@contextmanager
def _as_engine_errors() -> Iterator[None]:
    """Raise what a plan raises as an error for the user."""
    try:
        yield
    except PlanError as error:
        raise EngineError(str(error)) from error
