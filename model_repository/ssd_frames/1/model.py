"""Triton python backend: raw frames -> detections, where one process does everything on a GPU; see ``ssd``."""

import triton_python_backend_utils as pb_utils
from answering import Element, attempt
from decoding import resize
from one_process import OneProcess
from PIL import Image
from protocol import FRAME
from untrusted import check_size

MAX_SIDE_PX = 8192
"""Frames with a longer side are resized here: the engine's buffers are for ordinary ones."""


class TritonPythonModel(OneProcess):
    """Input FRAME (UINT8 [N, H, W, 3] RGB); outputs are detections."""

    def initialize(self, args):
        """Read the limits from the model's own configuration."""
        super().initialize(args)
        self.sizes = {name: int(self.parameters[name]["string_value"]) for name in ("min_side_px", "max_pixels")}

    def elements(self, request):
        """See the base class."""
        frames = pb_utils.get_input_tensor_by_name(request, "FRAME").as_numpy()
        return [attempt(lambda frame=frame: self._element(frame)) for frame in frames]

    def _element(self, frame):
        height, width = frame.shape[:2]
        check_size(width, height, **self.sizes)
        described = (width, height), width * height, lambda: resize(Image.fromarray(frame))
        for_engine = self.engine.resizes and max(width, height) <= MAX_SIDE_PX
        return Element(*described, FRAME, frame) if for_engine else Element(*described)
