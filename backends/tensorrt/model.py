"""Python-based Triton backend that runs TensorRT and TensorRT-RTX engines, for servers without the native one.

From a model's configuration it reads the same settings as the native ``tensorrt`` backend: ``default_model_filename``,
the instance group's device, and the graphs of ``optimization.cuda``, by their batch size. It also compares the plan
with the metadata from its build and with the parameter ``PRECISION``, which the native backend ignores, and refuses a
plan that does not fit. Tensors are exchanged by DLPack, so that between models on the same GPU nothing is copied
through the host. Needs PyTorch, this project, and the library that built the plan.
"""

import json
from pathlib import Path

import torch
import triton_python_backend_utils as pb_utils
from gather import gather
from structured_log import StructuredLog
from torch.utils.dlpack import from_dlpack, to_dlpack

from ssd_triton.common.errors import UserError
from ssd_triton.detector.engines.plan import INPUT, OUTPUTS
from ssd_triton.detector.engines.runner import EngineRunner

DEFAULT_MODEL_FILENAME = "model.plan"


class TritonPythonModel:
    """One instance of a model on one GPU."""

    @staticmethod
    def auto_complete_config(config):
        """Keep the configuration: it is complete."""
        return config

    def initialize(self, args):
        """Load the plan onto the instance's GPU, and capture its graphs there."""
        config = json.loads(args["model_config"])
        self.log = StructuredLog(args["model_name"])
        filename = config.get("default_model_filename") or DEFAULT_MODEL_FILENAME
        on_gpu = args["model_instance_kind"] == "GPU"
        self.device = torch.device(f"cuda:{args['model_instance_device_id']}" if on_gpu else "cpu")
        try:
            self.engine = EngineRunner(
                Path(args["model_repository"]) / args["model_version"] / filename,
                self.device,
                precision=config["parameters"]["PRECISION"]["string_value"],
                max_batch_size=config["max_batch_size"],
                graph_batch_sizes=_graph_batch_sizes(config),
            )
        except UserError as error:
            raise pb_utils.TritonModelException(str(error)) from error

    def execute(self, requests):
        """Run the requests as one batch, and split the outputs by request."""
        with self.log.failures(requests):
            return self._execute(requests)

    def _execute(self, requests):
        images = [_image(request) for request in requests]
        outputs = self.engine(gather(images, self.device))
        torch.cuda.current_stream(self.device).synchronize()
        parts = [output.split([len(image) for image in images]) for output in outputs]
        return [_response([part[index] for part in parts]) for index in range(len(requests))]


def _image(request):
    return from_dlpack(pb_utils.get_input_tensor_by_name(request, INPUT).to_dlpack())


def _response(arrays):
    named = zip(OUTPUTS, arrays, strict=True)
    return pb_utils.InferenceResponse([pb_utils.Tensor.from_dlpack(name, to_dlpack(array)) for name, array in named])


def _graph_batch_sizes(config):
    """Read the batch sizes of ``optimization { cuda { graphs: true graph_spec [ ... ] } }``."""
    cuda = config.get("optimization", {}).get("cuda", {})
    return [spec["batch_size"] for spec in cuda.get("graph_spec", [])] if cuda.get("graphs") else []
