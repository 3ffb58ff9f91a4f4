"""Python-based Triton backend that runs ONNX models, for servers without the native ``onnxruntime`` backend.

From a model's configuration it reads the same settings as the native backend: ``default_model_filename``, the instance
group's kind and device, ``optimization.execution_accelerators``, ``optimization.graph.level``, and the parameters
``intra_op_thread_count``, ``inter_op_thread_count`` and ``execution_mode``. Needs NumPy and ONNX Runtime.
"""

import json
import os
from pathlib import Path

import numpy as np

os.environ["ORT_DISABLE_TELEMETRY"] = "1"
import onnxruntime as ort
import triton_python_backend_utils as pb_utils
from cores import usable_cores
from structured_log import StructuredLog

DEFAULT_MODEL_FILENAME = "model.onnx"
OPTIMIZATION_LEVELS = {
    -1: ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    0: ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
    1: ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    2: ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
}
"""ONNX Runtime's levels by ``optimization { graph { level } }``, as in the native backend."""


class TritonPythonModel:
    """One instance of a model: one ONNX Runtime session."""

    @staticmethod
    def auto_complete_config(config):
        """Keep the configuration: it is complete."""
        return config

    def initialize(self, args):
        """Open the session, or refuse a configuration that does not match the file."""
        config = json.loads(args["model_config"])
        self.log = StructuredLog(args["model_name"])
        filename = config.get("default_model_filename") or DEFAULT_MODEL_FILENAME
        path = Path(args["model_repository"]) / args["model_version"] / filename
        if not path.is_file():
            raise pb_utils.TritonModelException(f"{path} not found: build it with 'ssd-triton build'")
        providers = _providers(config, args)
        available = ort.get_available_providers()
        missing = {name for name, _ in providers} - set(available)
        if missing:
            raise pb_utils.TritonModelException(
                f"this ONNX Runtime lacks {', '.join(sorted(missing))}; it has {', '.join(available)}"
            )
        self.session = ort.InferenceSession(path, _session_options(config), providers=providers)
        self.batches = config["max_batch_size"] > 0
        self.inputs = [tensor["name"] for tensor in config["input"]]
        self.outputs = [tensor["name"] for tensor in config["output"]]
        _check_names(path, self.session, self.inputs, self.outputs)

    def execute(self, requests):
        """Run the requests as one batch, and split the outputs by request."""
        with self.log.failures(requests):
            return self._execute(requests)

    def _execute(self, requests):
        tensors = [[pb_utils.get_input_tensor_by_name(r, name).as_numpy() for name in self.inputs] for r in requests]
        if not self.batches or len(requests) == 1:
            return [_response(self.outputs, self._run(arrays)) for arrays in tensors]
        stacked = [np.concatenate(arrays) for arrays in zip(*tensors, strict=True)]
        ends = np.cumsum([len(arrays[0]) for arrays in tensors])[:-1]
        split = [np.split(output, ends) for output in self._run(stacked)]
        return [_response(self.outputs, arrays) for arrays in zip(*split, strict=True)]

    def _run(self, arrays):
        return self.session.run(self.outputs, dict(zip(self.inputs, arrays, strict=True)))


def _response(names, arrays):
    return pb_utils.InferenceResponse([pb_utils.Tensor(*pair) for pair in zip(names, arrays, strict=True)])


def _session_options(config):
    parameters = config.get("parameters", {})

    def integer(key):
        return int(parameters.get(key, {}).get("string_value", "0"))

    options = ort.SessionOptions()
    # 0, ONNX Runtime's default, would use all cores of the machine; a container may have a limit.
    options.intra_op_num_threads = integer("intra_op_thread_count") or usable_cores()
    options.inter_op_num_threads = integer("inter_op_thread_count")
    if integer("execution_mode") == 1:
        options.execution_mode = ort.ExecutionMode.ORT_PARALLEL
    level = int(config.get("optimization", {}).get("graph", {}).get("level", 0))
    options.graph_optimization_level = OPTIMIZATION_LEVELS[level]
    # By default idle threads spin, on cores that the other models of the ensemble need.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    return options


def _providers(config, args):
    """List ONNX Runtime's providers by preference, with their options."""
    accelerators = config.get("optimization", {}).get("execution_accelerators", {})
    providers = []
    if args["model_instance_kind"] == "GPU":
        device = {"device_id": args["model_instance_device_id"]}
        for accelerator in accelerators.get("gpu_execution_accelerator", []):
            if accelerator["name"] == "tensorrt":
                providers.append(("TensorrtExecutionProvider", {**device, **accelerator.get("parameters", {})}))
        providers.append(("CUDAExecutionProvider", device))
    else:
        for accelerator in accelerators.get("cpu_execution_accelerator", []):
            if accelerator["name"] == "openvino":
                providers.append(
                    ("OpenVINOExecutionProvider", {"device_type": "CPU", **accelerator.get("parameters", {})})
                )
    return [*providers, ("CPUExecutionProvider", {})]


def _check_names(path, session, inputs, outputs):
    for kind, got, expected in (
        ("inputs", session.get_inputs(), inputs),
        ("outputs", session.get_outputs(), outputs),
    ):
        names = sorted(tensor.name for tensor in got)
        if names != sorted(expected):
            raise pb_utils.TritonModelException(f"{path} has the {kind} {names}, expected {sorted(expected)}")
