"""Triton python backend: encoded images or raw frames -> what the detector takes.

Needs NumPy and Pillow, and nothing of this project. A request that cannot be served is refused alone, with a sentence
that names the first element at fault; the other requests of its batch are served.
"""

import json
import math
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import triton_python_backend_utils as pb_utils
from PIL import Image
from structured_log import StructuredLog
from untrusted import RefusedInputError, check_size, open_untrusted

SIZE_PX = 300
"""Side of the network's input."""
SIXTEEN_BIT_MODES = ("I", "I;16", "I;16B", "I;16L")
"""PIL's modes for 16-bit grey; its own conversion would clip them at 255."""


class TritonPythonModel:
    """Inputs IMAGE (encoded) or FRAME (UINT8 [N, H, W, 3] RGB); outputs ``image`` and ``original_size``."""

    def initialize(self, args):
        """Read the limits from the model's own configuration."""
        parameters = json.loads(args["model_config"])["parameters"]
        self.max_file_bytes = int(parameters["max_file_bytes"]["string_value"])
        self.sizes = {name: int(parameters[name]["string_value"]) for name in ("min_side_px", "max_pixels")}
        self.reduced_decode_ratio = float(parameters["reduced_decode_ratio"]["string_value"])
        threads = int(parameters["decode_threads"]["string_value"]) or len(os.sched_getaffinity(0))
        # Every image is checked against max_pixels; PIL's own limit would only warn.
        Image.MAX_IMAGE_PIXELS = None
        self.log = StructuredLog(args["model_name"])
        self.metrics = _metric_family()
        labels = {"model": args["model_name"], "version": args.get("model_version", "")}
        self.refused = self.metrics and self.metrics.Metric(labels=labels)
        self.pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")

    def execute(self, requests):
        """Answer every request of a batch; all their images are decoded side by side."""
        futures = [[self.pool.submit(_attempt, load) for load in self._loaders(request)] for request in requests]
        return [self._respond(request, elements) for request, elements in zip(requests, futures, strict=True)]

    def finalize(self):
        """Let the threads end."""
        self.pool.shutdown()

    def _loaders(self, request):
        """Give a callable for each batch element of a request, to be run on a thread."""
        encoded = pb_utils.get_input_tensor_by_name(request, "IMAGE")
        frames = pb_utils.get_input_tensor_by_name(request, "FRAME")
        if (encoded is None) == (frames is None):
            return [_refusal("got both IMAGE and FRAME or neither, expected one of them")]
        if encoded is not None:
            return [lambda data=data: self._decode(data) for data in encoded.as_numpy().reshape(-1)]
        return [lambda frame=frame: self._from_frame(frame) for frame in frames.as_numpy()]

    def _respond(self, request, elements):
        """Give the response of one request, or an error that names the first element at fault."""
        images, sizes = [], []
        for index, element in enumerate(elements):
            loaded = element.result()
            if isinstance(loaded, str):
                return self._refuse(request, f"batch element {index}: {loaded}")
            image, size = loaded
            images.append(image)
            sizes.append(size)
        if not images:
            return self._refuse(request, "got an empty batch, expected an image")
        return pb_utils.InferenceResponse(
            [
                pb_utils.Tensor("image", np.stack(images)),
                pb_utils.Tensor("original_size", np.array(sizes, np.int32)),
            ]
        )

    def _refuse(self, request, reason):
        self.log.write("refused", [request], reason)
        if self.refused:
            self.refused.increment(1)
        return pb_utils.InferenceResponse(error=pb_utils.TritonError(reason, pb_utils.TritonError.INVALID_ARG))

    def _decode(self, data):
        """File bytes -> UINT8 [300, 300, 3] RGB and (width, height)."""
        try:
            image = open_untrusted(data, max_file_bytes=self.max_file_bytes, **self.sizes)
            size = image.size
            if self.reduced_decode_ratio > 0:
                # libjpeg decodes at 1/2, 1/4 or 1/8 for part of the work; PIL never goes below the size asked for.
                side_px = math.ceil(SIZE_PX * self.reduced_decode_ratio)
                image.draft(None, (side_px, side_px))
            image.load()
            return _resize(_to_rgb(image)), size
        except RefusedInputError:
            raise
        # On damaged files PIL's decoders raise almost anything: OSError, SyntaxError, struct.error, zlib.error, ...
        except Exception as error:
            raise RefusedInputError(f"the image is damaged or of an unsupported kind: {error}") from error

    def _from_frame(self, frame):
        """UINT8 [H, W, 3] RGB -> UINT8 [300, 300, 3] RGB and (width, height)."""
        height, width = frame.shape[:2]
        check_size(width, height, **self.sizes)
        return _resize(Image.fromarray(frame)), (width, height)


def _metric_family():
    """Make a metric of refused requests: Triton's own count them as successes; None for servers before 23.05."""
    if not hasattr(pb_utils, "MetricFamily"):
        return None
    return pb_utils.MetricFamily(
        name="ssd_refused_requests_total",
        description="Requests that were refused because of what they hold",
        kind=pb_utils.MetricFamily.COUNTER,
    )


def _attempt(load):
    """Give what a loader gives, or the reason of its refusal as text.

    An exception in a future is part of a cycle that keeps the frames it passed through, and with them the file, until
    Python collects garbage: a few large refused files would fill the memory.
    """
    try:
        return load()
    except RefusedInputError as error:
        return str(error)


def _refusal(message):
    def refuse():
        raise RefusedInputError(message)

    return refuse


def _to_rgb(image):
    """Convert any mode that PIL can; transparency is dropped and EXIF orientation not applied, as in training."""
    if image.mode in SIXTEEN_BIT_MODES:
        samples = np.asarray(image)
        return Image.fromarray((np.clip(samples, 0, 65535) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise RefusedInputError("got floating-point pixels, expected 8 or 16 bits a channel")
    if image.mode == "P" and "transparency" in image.info:
        return image.convert("RGBA").convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _resize(image):
    return np.asarray(image.resize((SIZE_PX, SIZE_PX), Image.Resampling.BILINEAR))
