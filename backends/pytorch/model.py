"""Python-based Triton backend that runs TorchScript models, for servers without the native ``pytorch`` backend.

From a model's configuration it reads ``default_model_filename``, the instance group's kind and device, and these
parameters:

- ``DISABLE_OPTIMIZED_EXECUTION``, as in the native backend: ``true`` runs a model as it is written, without compiling
  it for the shapes of its inputs.
- ``CUDA_GRAPH_BATCH_SIZES``: batch sizes such as ``1,8,64`` for which the model is captured as a CUDA graph when it is
  loaded; a batch of a size between two of them is padded to the larger one. The native backend ignores it.
- ``OUTPUTS_IN_HOST_MEMORY``: ``yes`` copies the outputs of a batch to the host in one transfer instead of one for each
  request, for small outputs that go to a client. The native backend ignores it.

Tensors are exchanged by DLPack, so that between models on the same GPU nothing is copied through the host. On a CPU the
model runs in FP32. Needs PyTorch.
"""

import bisect
import json
from pathlib import Path

import torch
import triton_python_backend_utils as pb_utils
from gather import gather
from structured_log import StructuredLog
from torch.utils.dlpack import from_dlpack, to_dlpack

DEFAULT_MODEL_FILENAME = "model.pt"
WARM_UP_RUNS = 3
"""Runs before a graph is captured, in which cuDNN chooses its algorithms."""
DTYPES = {"TYPE_UINT8": torch.uint8, "TYPE_INT32": torch.int32, "TYPE_FP16": torch.float16, "TYPE_FP32": torch.float32}


class TritonPythonModel:
    """One instance of a model on one device."""

    @staticmethod
    def auto_complete_config(config):
        """Keep the configuration: it is complete."""
        return config

    def initialize(self, args):
        """Load the model onto the instance's device, and capture its graphs there."""
        config = json.loads(args["model_config"])
        self.log = StructuredLog(args["model_name"])
        filename = config.get("default_model_filename") or DEFAULT_MODEL_FILENAME
        path = Path(args["model_repository"]) / args["model_version"] / filename
        if not path.is_file():
            raise pb_utils.TritonModelException(f"{path} not found: build it with 'ssd-triton build'")
        on_gpu = args["model_instance_kind"] == "GPU"
        self.device = torch.device(f"cuda:{args['model_instance_device_id']}" if on_gpu else "cpu")
        self.model = torch.jit.load(path, map_location=self.device)
        if not on_gpu:
            self.model.float()
        self.inputs = [tensor["name"] for tensor in config["input"]]
        self.outputs = [tensor["name"] for tensor in config["output"]]
        self.max_batch_size = config["max_batch_size"]
        self.optimized = _parameter(config, "DISABLE_OPTIMIZED_EXECUTION") != "true"
        self.outputs_in_host_memory = _parameter(config, "OUTPUTS_IN_HOST_MEMORY") == "yes"
        torch.backends.cudnn.benchmark = True
        torch.backends.cudnn.allow_tf32 = False  # TF32 would lower the precision of FP32
        self.graphs = self._capture(config) if on_gpu else {}

    def execute(self, requests):
        """Run the requests as one batch, and split the outputs by request."""
        with self.log.failures(requests):
            return self._execute(requests)

    def _execute(self, requests):
        tensors = [[_input(request, name) for request in requests] for name in self.inputs]
        sizes = [len(tensor) for tensor in tensors[0]]
        with torch.inference_mode(), torch.jit.optimized_execution(self.optimized):
            results = [result.contiguous() for result in self._run([gather(parts, self.device) for parts in tensors])]
            if self.outputs_in_host_memory:
                results = [result.to("cpu", non_blocking=True) for result in results]
            if self.device.type == "cuda":
                torch.cuda.current_stream(self.device).synchronize()
        parts = [result.split(sizes) for result in results]
        return [self._response([part[index] for part in parts]) for index in range(len(requests))]

    def _response(self, arrays):
        named = zip(self.outputs, arrays, strict=True)
        return pb_utils.InferenceResponse([pb_utils.Tensor.from_dlpack(n, to_dlpack(a)) for n, a in named])

    def _run(self, arrays):
        """Run one batch; outputs of a graph are copied, since its next replay overwrites them."""
        batch = arrays[0].shape[0]
        sizes = sorted(self.graphs)
        index = bisect.bisect_left(sizes, batch)
        if index == len(sizes):
            return self.model(*arrays)
        graph, static_inputs, static_outputs = self.graphs[sizes[index]]
        for static, array in zip(static_inputs, arrays, strict=True):
            static[:batch].copy_(array)
        graph.replay()
        return [output[:batch].clone() for output in static_outputs]

    def _capture(self, config):
        """Capture a graph for each batch size, in one shared memory pool, since graphs never run at the same time."""
        listed = _parameter(config, "CUDA_GRAPH_BATCH_SIZES")
        sizes = sorted({int(size) for size in listed.split(",") if size.strip()}, reverse=True)
        if sizes and not 1 <= sizes[-1] <= sizes[0] <= self.max_batch_size:
            raise pb_utils.TritonModelException(
                f"CUDA_GRAPH_BATCH_SIZES: got {listed}, expected sizes from 1 to max_batch_size = {self.max_batch_size}"
            )
        graphs, pool = {}, None
        with torch.inference_mode(), torch.cuda.device(self.device):
            for size in sizes:
                inputs = [
                    torch.zeros(
                        [size, *map(int, tensor["dims"])], dtype=DTYPES[tensor["data_type"]], device=self.device
                    )
                    for tensor in config["input"]
                ]
                side_stream = torch.cuda.Stream()
                side_stream.wait_stream(torch.cuda.current_stream())
                with torch.cuda.stream(side_stream):
                    for _ in range(WARM_UP_RUNS):
                        self.model(*inputs)
                torch.cuda.current_stream().wait_stream(side_stream)
                graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(graph, pool=pool):
                    outputs = self.model(*inputs)
                pool = pool or graph.pool()
                graphs[size] = (graph, inputs, outputs)
        return graphs


def _input(request, name):
    return from_dlpack(pb_utils.get_input_tensor_by_name(request, name).to_dlpack())


def _parameter(config, name):
    return config.get("parameters", {}).get(name, {}).get("string_value", "")
