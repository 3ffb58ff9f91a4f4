# Written from ssd_preprocess/1/answering.py by the build, do not edit. Digest: 918da087e0b20405
"""What the preprocessing models have in common: a batch of requests, each answered or refused with a reason.

A request that cannot be served is refused alone, with a sentence that names the first element at fault; the other
requests of its batch are served.
"""

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import triton_python_backend_utils as pb_utils
from cores import usable_cores
from decoding import check_pillow
from structured_log import StructuredLog
from untrusted import RefusedInputError


class Preprocessing:
    """A model whose elements become ``image`` and ``original_size``, side by side on threads.

    Subclasses give :meth:`loaders`.
    """

    def initialize(self, args):
        """Read the model's own configuration."""
        check_pillow()
        self.parameters = json.loads(args["model_config"])["parameters"]
        self.threads = int(self.parameters["decode_threads"]["string_value"]) or usable_cores()
        self.log = StructuredLog(args["model_name"])
        self.metrics = _metric_family()
        labels = {"model": args["model_name"], "version": args.get("model_version", "")}
        self.refused = self.metrics and self.metrics.Metric(labels=labels)
        self.pool = ThreadPoolExecutor(self.threads, thread_name_prefix="decode")

    def loaders(self, request):
        """Give a callable for each batch element of a request: -> UINT8 [300, 300, 3] and (width, height).

        The callables run on threads, and raise RefusedInputError for elements that cannot be served.
        """
        raise NotImplementedError

    def execute(self, requests):
        """Answer every request of a batch; all their elements are loaded side by side."""
        futures = [[self.pool.submit(attempt, load) for load in self.loaders(request)] for request in requests]
        return [self._respond(request, elements) for request, elements in zip(requests, futures, strict=True)]

    def finalize(self):
        """Let the threads end."""
        self.pool.shutdown()

    def _respond(self, request, elements):
        """Give the response of one request, or an error that names the first element at fault."""
        loaded = [element.result() for element in elements]
        if reason := refusal(loaded):
            return self._refuse(request, reason)
        return pb_utils.InferenceResponse(
            [
                pb_utils.Tensor("image", np.stack([image for image, _ in loaded])),
                pb_utils.Tensor("original_size", np.array([size for _, size in loaded], np.int32)),
            ]
        )

    def _refuse(self, request, reason):
        self.log.write("refused", [request], reason)
        if self.refused:
            self.refused.increment(1)
        return pb_utils.InferenceResponse(error=pb_utils.TritonError(reason, pb_utils.TritonError.INVALID_ARG))


def refusal(loaded):
    """Say why a request with these elements is refused, if it is: those that cannot be served are reasons, as text."""
    for index, one in enumerate(loaded):
        if isinstance(one, str):
            return f"batch element {index}: {one}"
    return "" if loaded else "got an empty batch, expected an image"


def _metric_family():
    """Make a metric of refused requests: Triton's own count them as successes; None for servers before 23.05."""
    if not hasattr(pb_utils, "MetricFamily"):
        return None
    return pb_utils.MetricFamily(
        name="ssd_refused_requests_total",
        description="Requests that were refused because of what they hold",
        kind=pb_utils.MetricFamily.COUNTER,
    )


def attempt(load):
    """Give what a loader gives, or the reason of its refusal as text.

    An exception in a future is part of a cycle that keeps the frames it passed through, and with them the file, until
    Python collects garbage: a few large refused files would fill the memory.
    """
    try:
        return load()
    except RefusedInputError as error:
        return str(error)
