"""Running a TensorRT or TensorRT-RTX engine on a GPU, with PyTorch tensors.

The ``tensorrt`` backend of the embedded server, the benchmark and the parity check run engines through this module. The
plan is checked against its metadata before it is loaded. Small batches spend most of their time on launching kernels.
CUDA graphs avoid that. TensorRT-RTX captures them itself; for TensorRT, this module captures one for each requested
batch size.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ssd_triton.common.files import relative_to_cwd
from ssd_triton.detector.engines.errors import EngineError
from ssd_triton.detector.engines.metadata import check_engine, read_metadata
from ssd_triton.detector.engines.runtime import import_runtime
from ssd_triton.detector.variants import Precision

INPUT = "image"
OUTPUTS = ("loc", "conf")
WARM_UP_RUNS = 3
"""In a context's first runs, TensorRT allocates memory and chooses kernels lazily. A graph must not record this."""


@dataclass(frozen=True)
class _Graph:
    """A captured run, with the memory that it reads and writes; the context must live as long as the graph."""

    graph: Any
    context: Any
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
        self._trt = runtime.module
        self._is_rtx = runtime.is_rtx
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        with torch.cuda.device(device), torch.inference_mode():
            self._runtime = self._trt.Runtime(self._trt.Logger(self._trt.Logger.WARNING))
            self._engine = self._runtime.deserialize_cuda_engine(plan.read_bytes())
            if self._engine is None:
                raise EngineError(f"{runtime.name} {runtime.version} cannot load {relative_to_cwd(plan)}: see its log")
            self._context = self._plain_context(use_graphs=bool(graph_batch_sizes))
            self._graphs = {} if self._is_rtx else self._capture(sorted(graph_batch_sizes, reverse=True))

    def __call__(self, image: Tensor) -> tuple[Tensor, ...]:
        """Run one batch.

        Args:
            image: UINT8 [N, 300, 300, 3], RGB, on the engine's device.

        Returns:
            ``loc`` FP32 [N, 4, 8732] and ``conf`` FP32 [N, num_labels, 8732], on the device, in newly allocated memory;
            later work on the current stream waits for them.
        """
        with torch.cuda.device(self._device), torch.inference_mode():
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
            outputs = self._allocate(self._context, image)
            self._enqueue(self._context, image, outputs)
            return outputs
        captured = self._graphs[sizes[index]]
        captured.image[:batch].copy_(image)
        captured.graph.replay()
        return tuple(output[:batch].clone() for output in captured.outputs)

    def _plain_context(self, *, use_graphs: bool) -> Any:
        """Create a context for batches of any size."""
        if not (self._is_rtx and use_graphs):
            return self._engine.create_execution_context()
        config = self._engine.create_runtime_config()
        config.cuda_graph_strategy = self._trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        return self._engine.create_execution_context(config)

    def _allocate(self, context: Any, image: Tensor) -> tuple[Tensor, ...]:
        """Allocate memory for the outputs of a batch."""
        if not context.set_input_shape(INPUT, tuple(image.shape)):
            raise EngineError(f"the engine refuses a batch of the shape {list(image.shape)}")
        return tuple(
            torch.empty(tuple(context.get_tensor_shape(name)), dtype=torch.float32, device=self._device)
            for name in OUTPUTS
        )

    def _enqueue(self, context: Any, image: Tensor, outputs: tuple[Tensor, ...]) -> None:
        """Start one run on this runner's stream."""
        for name, tensor in zip((INPUT, *OUTPUTS), (image, *outputs), strict=True):
            context.set_tensor_address(name, tensor.data_ptr())
        if not context.execute_async_v3(self._stream.cuda_stream):
            raise EngineError("the engine failed to run: see the log of TensorRT")

    def _capture(self, sizes: Sequence[int]) -> dict[int, _Graph]:
        """Capture a graph, with its own context, for each batch size.

        A context that has been captured must not change its shapes; the contexts share one piece of scratch memory,
        since their graphs never run at the same time.
        """
        if not sizes:
            return {}
        scratch = torch.empty(self._engine.device_memory_size_v2, dtype=torch.uint8, device=self._device)
        self._scratch = scratch
        graphs = {}
        for size in sizes:
            context = self._engine.create_execution_context(self._trt.ExecutionContextAllocationStrategy.USER_MANAGED)
            context.set_device_memory(scratch.data_ptr(), scratch.numel())
            image = torch.randint(0, 256, (size, *self._image_shape()), dtype=torch.uint8, device=self._device)
            outputs = self._allocate(context, image)
            torch.cuda.synchronize()
            for _ in range(WARM_UP_RUNS):
                self._enqueue(context, image, outputs)
            self._stream.synchronize()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, stream=self._stream):
                self._enqueue(context, image, outputs)
            graphs[size] = _Graph(graph, context, image, outputs)
        return graphs

    def _image_shape(self) -> tuple[int, ...]:
        """Height, width and channels."""
        return tuple(self._engine.get_tensor_shape(INPUT))[1:]
