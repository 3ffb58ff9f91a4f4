"""Triton python backend: raw frames -> detections, where one process does everything on a GPU; see ``ssd``."""

import triton_python_backend_utils as pb_utils
from decoding import resize
from one_process import Element, OneProcess
from PIL import Image
from protocol import FRAME, PIXELS
from untrusted import PixelBudget, RefusedInputError, check_size

MAX_SIDE_PX = 8192
"""Frames with a longer side are resized here: the engine's buffers are for ordinary ones."""


class TritonPythonModel(OneProcess):
    """Input FRAME (UINT8 [N, H, W, 3] RGB); outputs are detections."""

    def initialize(self, args):
        """Read the limits from the model's own configuration."""
        super().initialize(args)
        self.sizes = {name: int(self.parameters[name]["string_value"]) for name in ("min_side_px", "max_pixels")}
        self.max_request_pixels = int(self.parameters["max_request_pixels"]["string_value"])

    def elements(self, request):
        """See the base class."""
        frames = pb_utils.get_input_tensor_by_name(request, "FRAME").as_numpy()
        budget = PixelBudget(self.max_request_pixels)
        return [self._element(frame, budget) for frame in frames]

    def _element(self, frame, budget):
        height, width = frame.shape[:2]
        try:
            check_size(width, height, **self.sizes)
            budget.take(width * height)
        except RefusedInputError as error:
            return str(error)
        if self.engine.resizes and max(width, height) <= MAX_SIDE_PX:
            return Element(FRAME, frame, (width, height), lambda: resize(Image.fromarray(frame)))
        return self.pool.submit(lambda: Element(PIXELS, resize(Image.fromarray(frame)), (width, height)))
