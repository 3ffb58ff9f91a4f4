# Written from ssd_preprocess/1/answering.py by the build, do not edit. Digest: 3393060157eaa864
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
from untrusted import RefusedInputError, check_request_work


class Element:
    """An image within its own limits, on its way to the network.

    Attributes:
        refusal: The reason, as text, of one that proved to be damaged only after all were checked.
    """

    def __init__(self, size_px, work_px, load, kind=None, data=None):
        """Describe it.

        Args:
            size_px: Width and height of the original.
            work_px: Its work, in pixels; see ``untrusted.py``.
            load: -> UINT8 [300, 300, 3] RGB; raises RefusedInputError for what proves to be damaged.
            kind: What an engine gets, see its ``protocol.py``; None: it can only be loaded here.
            data: The engine's bytes, or UINT8.
        """
        self.size_px, self.work_px, self.load = size_px, work_px, load
        self.kind, self.data = kind, data
        self.refusal = None


class Preprocessing:
    """A model whose elements become ``image`` and ``original_size``, side by side on threads.

    Subclasses give :meth:`elements`. All elements of a request are checked before one of them is loaded.
    """

    def initialize(self, args):
        """Read the model's own configuration."""
        check_pillow()
        self.parameters = json.loads(args["model_config"])["parameters"]
        self.max_request_pixels = int(self.parameters["max_request_pixels"]["string_value"])
        self.threads = int(self.parameters["decode_threads"]["string_value"]) or usable_cores()
        self.log = StructuredLog(args["model_name"])
        self.metrics = _metric_family()
        labels = {"model": args["model_name"], "version": args.get("model_version", "")}
        self.refused = self.metrics and self.metrics.Metric(labels=labels)
        self.pool = ThreadPoolExecutor(self.threads, thread_name_prefix="decode")

    def elements(self, request):
        """Give for each image of a request an Element, the reason of its refusal as text, or a function.

        Functions open what takes a while: they run side by side, and give an Element or raise RefusedInputError.
        """
        raise NotImplementedError

    def execute(self, requests):
        """Answer every request of a batch; all their elements are loaded side by side."""
        checked = self.checked(requests)
        loaded = iter(self.load([one for elements in checked if not refusal(elements) for one in elements]))
        return [
            self._respond(request, elements, [] if refusal(elements) else [next(loaded) for _ in elements])
            for request, elements in zip(requests, checked, strict=True)
        ]

    def load(self, elements):
        """Give the pixels of each element, UINT8 [300, 300, 3] RGB, or the reason of its refusal as text."""
        return self.pool.map(attempt, [one.load for one in elements])

    def checked(self, requests):
        """Give the elements of each request; the reason of a refusal stands in the place of what is refused."""
        found = [self.elements(request) for request in requests]
        functions = [one for elements in found for one in elements if callable(one)]
        # A thread costs a few percent of an ordinary image's time.
        run = map if len(functions) == 1 else self.pool.map
        opened = iter(run(attempt, functions))
        return [self._within_budget([next(opened) if callable(one) else one for one in part]) for part in found]

    def finalize(self):
        """Let the threads end."""
        self.pool.shutdown()

    def _within_budget(self, elements):
        """Put the reason of a refusal in the place of the first element that is too much for one request."""
        work_px = 0
        for index, one in enumerate(elements):
            if isinstance(one, str):
                break
            work_px += one.work_px
            try:
                check_request_work(work_px, self.max_request_pixels)
            except RefusedInputError as error:
                return [*elements[:index], str(error), *elements[index + 1 :]]
        return elements

    def _respond(self, request, elements, loaded):
        """Give the response of one request, or an error that names the first element at fault."""
        if reason := refusal(elements) or refusal(loaded):
            return self._refuse(request, reason)
        return pb_utils.InferenceResponse(
            [
                pb_utils.Tensor("image", np.stack(loaded)),
                pb_utils.Tensor("original_size", np.array([one.size_px for one in elements], np.int32)),
            ]
        )

    def _refuse(self, request, reason):
        self.log.write("refused", [request], reason)
        if self.refused:
            self.refused.increment(1)
        return pb_utils.InferenceResponse(error=pb_utils.TritonError(reason, pb_utils.TritonError.INVALID_ARG))


def refusal(elements):
    """Say why a request with these elements is refused, if it is: those that cannot be served are reasons, as text."""
    for index, one in enumerate(elements):
        if isinstance(one, str):
            return f"batch element {index}: {one}"
    return "" if elements else "got an empty batch, expected an image"


def _metric_family():
    """Make a metric of refused requests: Triton's own count them as successes; None for servers before 23.05."""
    if not hasattr(pb_utils, "MetricFamily"):
        return None
    return pb_utils.MetricFamily(
        name="ssd_refused_requests_total",
        description="Requests that were refused because of what they hold",
        kind=pb_utils.MetricFamily.COUNTER,
    )


def attempt(function):
    """Give what a function gives, or the reason of its refusal as text.

    An exception in a future is part of a cycle that keeps the frames it passed through, and with them the file, until
    Python collects garbage: a few large refused files would fill the memory.
    """
    try:
        return function()
    except RefusedInputError as error:
        return str(error)
