# Written from ssd_triton/detector/engines/plan.py by the build, do not edit. Digest: ae721a6e94a67ef1
"""Runs a TensorRT or TensorRT-RTX plan on PyTorch's current stream.

The build copies this file into the model ``ssd``, whose engine may have a plan in the place of a TorchScript, so that
backend, benchmark and engine run plans in the same way. It needs only PyTorch and the library that built the plan, and
PyTorch only to run one: an image that builds plans has none.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

INPUT = "image"
OUTPUTS = ("loc", "conf")
MODULES = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
"""Python modules of the libraries, by their names in this project's configuration and in the metadata of a plan."""


class PlanError(RuntimeError):
    """A plan that cannot be loaded or run."""


class Plan:
    """A detector as a plan on one GPU: UINT8 [N, 300, 300, 3] -> ``loc`` [N, 4, boxes], ``conf`` [N, labels, boxes].

    Each batch size has an execution context of its own, whose shapes never change: the runs of one can be captured as a
    CUDA graph once it has run a few times, in which the library allocates memory and chooses kernels. The contexts
    share one piece of scratch memory, so runs must follow each other on one stream.
    """

    def __init__(self, path: Path, runtime: str) -> None:
        """Load it onto the current CUDA device.

        Args:
            path: The plan.
            runtime: Name of the library that built it.

        Raises:
            PlanError: The library is missing, or refuses the plan.
        """
        try:
            self._library: Any = importlib.import_module(MODULES[runtime])
        except (ImportError, OSError) as error:
            # OSError: the Python module is installed, but one of its shared libraries is missing.
            raise PlanError(
                f"{path.name} needs {runtime} for this Python, which cannot be imported: {error}"
            ) from error
        self.is_rtx = runtime == "tensorrt-rtx"
        self._contexts: dict[int, Any] = {}
        self._scratch: torch.Tensor | None = None
        self._runtime = self._library.Runtime(self._library.Logger(self._library.Logger.WARNING))
        self.engine = self._runtime.deserialize_cuda_engine(path.read_bytes())
        if self.engine is None:
            raise PlanError(f"{runtime} {self._library.__version__} cannot load {path.name}: see its log")

    def __call__(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Run a batch in the context of its size; see the class."""
        context = self._contexts.get(len(images))
        if context is None:
            context = self._contexts[len(images)] = self._fixed_context(images)
        return self.run(context, images)

    def run(self, context: Any, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Run a batch in a context for its shape, on the current stream.

        Returns:
            The outputs, FP32, in newly allocated memory.

        Raises:
            PlanError: The library refuses to run it.
        """
        import torch

        outputs = tuple(
            torch.empty(tuple(context.get_tensor_shape(name)), dtype=torch.float32, device=images.device)
            for name in OUTPUTS
        )
        for name, tensor in zip((INPUT, *OUTPUTS), (images, *outputs), strict=True):
            context.set_tensor_address(name, tensor.data_ptr())
        if not context.execute_async_v3(torch.cuda.current_stream(images.device).cuda_stream):
            raise PlanError("the plan failed to run: see the log of TensorRT")
        return outputs

    def context(self, *, own_graphs: bool = False) -> Any:
        """Create a context whose shape may change: see :meth:`shape`.

        Args:
            own_graphs: Whether TensorRT-RTX captures CUDA graphs by itself.
        """
        if not own_graphs:
            return self.engine.create_execution_context()
        config = self.engine.create_runtime_config()
        config.cuda_graph_strategy = self._library.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        return self.engine.create_execution_context(config)

    @staticmethod
    def shape(context: Any, images: torch.Tensor) -> None:
        """Prepare a context for the shape of a batch.

        Raises:
            PlanError: The plan was not built for such a batch.
        """
        if not context.set_input_shape(INPUT, tuple(images.shape)):
            raise PlanError(f"the plan refuses a batch of the shape {list(images.shape)}")

    def _fixed_context(self, images: torch.Tensor) -> Any:
        import torch

        by_user = self._library.ExecutionContextAllocationStrategy.USER_MANAGED
        if self._scratch is None:
            size = self.engine.device_memory_size_v2
            self._scratch = torch.empty(size, dtype=torch.uint8, device=images.device)
        if self.is_rtx:
            # Otherwise better kernels for the shape are compiled meanwhile, which a captured graph would never use.
            config = self.engine.create_runtime_config()
            config.set_execution_context_allocation_strategy(by_user)
            strategy = self._library.DynamicShapesKernelSpecializationStrategy.EAGER
            config.dynamic_shapes_kernel_specialization_strategy = strategy
            context = self.engine.create_execution_context(config)
        else:
            context = self.engine.create_execution_context(by_user)
        context.set_device_memory(self._scratch.data_ptr(), self._scratch.numel())
        self.shape(context, images)
        return context
