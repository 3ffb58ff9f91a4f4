"""Triton python backend: encoded images -> detections, where one process does everything on a GPU.

``configs/pytorch_fused_fp16.pbtxt`` runs it; with ``config.pbtxt``, ``ssd`` is an ensemble and this file is not read.
An instance needs NumPy and Pillow, the engine of its GPU PyTorch as well, and nvImageCodec to decode there.
"""

import triton_python_backend_utils as pb_utils
from decoding import DecodingLimits, opened, pixels
from isolation import ISOLATE_ABOVE_PX, DecoderProcesses
from one_process import MAX_SIDE_PX, Element, OneProcess
from protocol import FILE, PIXELS
from untrusted import PixelBudget, RefusedInputError

END_OF_IMAGE = b"\xff\xd9"
SAMPLINGS = ((1, 1), (2, 1), (2, 2))
"""How many samples of brightness lie beside and above each other for one of colour."""
YCC_ADOBE = 1
"""What Adobe's marker says of files whose channels are brightness and colours."""


class TritonPythonModel(OneProcess):
    """Input IMAGE (encoded); outputs are detections."""

    def initialize(self, args):
        """Read the limits from the model's own configuration."""
        super().initialize(args)
        self.limits = DecodingLimits.from_parameters(self.parameters)
        self.isolated = DecoderProcesses(self.threads, self.limits, float(self.parameters["max_cpu_s"]["string_value"]))

    def finalize(self):
        """Let threads and processes end."""
        super().finalize()
        self.isolated.close()

    def elements(self, request):
        """See the base class."""
        encoded = pb_utils.get_input_tensor_by_name(request, "IMAGE").as_numpy().reshape(-1)
        budget = PixelBudget(self.limits.max_request_pixels)
        return [self._element(data, budget) for data in encoded]

    def _element(self, data, budget):
        """Check a file, and start to decode it here unless the engine does."""
        try:
            image, work_px = opened(data, self.limits, budget)
        except RefusedInputError as error:
            return str(error)
        size_px = image.size

        def on_cpu():
            if work_px > ISOLATE_ABOVE_PX or image.format == "TIFF":
                return self.isolated.decode(data)
            return pixels(image, self.limits)

        if self.engine.decodes and _is_for_hardware(image, data):
            return Element(FILE, data, size_px, on_cpu)
        return self.pool.submit(_decoded, on_cpu, size_px)


def _decoded(on_cpu, size_px):
    try:
        return Element(PIXELS, on_cpu(), size_px)
    except RefusedInputError as error:
        return str(error)


def _is_for_hardware(image, data):
    """Whether a file is a whole baseline JPEG in the colours and samplings of cameras; all others are decoded by PIL."""
    if image.format != "JPEG" or image.mode != "RGB" or image.bits != 8 or "progressive" in image.info:
        return False
    if image.info.get("adobe_transform", YCC_ADOBE) != YCC_ADOBE or max(image.size) > MAX_SIDE_PX:
        return False
    (first, *brightness, _), *colours = image.layer
    is_ycc = "jfif" in image.info or "adobe_transform" in image.info or first == 1
    is_usual = tuple(brightness) in SAMPLINGS and all(tuple(layer[1:3]) == (1, 1) for layer in colours)
    return is_ycc and is_usual and data.endswith(END_OF_IMAGE)
