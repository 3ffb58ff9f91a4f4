"""Triton python backend: raw frames -> detections, where one process does everything on a GPU; see ``ssd``."""

from itertools import groupby

import triton_python_backend_utils as pb_utils
from answering import Element, attempt
from decoding import resize
from gpu_frames import frames_of, resized
from one_process import OneProcess
from PIL import Image
from protocol import FRAME, PIXELS
from untrusted import check_size

MAX_SIDE_PX = 8192
"""Frames of the host with a longer side are resized here: the engine's buffers are for ordinary ones."""


class TritonPythonModel(OneProcess):
    """Input FRAME (UINT8 [N, H, W, 3] RGB), on the host or a GPU; outputs are detections."""

    def initialize(self, args):
        """Read the limits from the model's own configuration."""
        super().initialize(args)
        self.sizes = {name: int(self.parameters[name]["string_value"]) for name in ("min_side_px", "max_pixels")}

    def elements(self, request):
        """See the base class."""
        frames = pb_utils.get_input_tensor_by_name(request, "FRAME")
        if frames.is_cpu():
            return [attempt(lambda frame=frame: self._element(frame)) for frame in frames.as_numpy()]
        return [attempt(lambda frame=frame: self._element_on_gpu(frame)) for frame in frames_of(frames)]

    def _element(self, frame):
        described = *self._checked_size(frame), lambda: resize(Image.fromarray(frame))
        for_engine = self.engine.resizes and max(frame.shape) <= MAX_SIDE_PX
        return Element(*described, FRAME, frame) if for_engine else Element(*described)

    def _element_on_gpu(self, frame):
        described = *self._checked_size(frame), lambda: resize(Image.fromarray(frame.cpu().numpy()))
        return Element(*described, data=frame)

    def _checked_size(self, frame):
        height, width = frame.shape[:2]
        check_size(width, height, **self.sizes)
        return (width, height), width * height

    def _to_pixels(self, elements):
        """Resize the frames of each GPU there, all at once; see the base class."""
        on_gpu = [one for one in elements if one.kind is None and one.data is not None]
        for _, group in groupby(on_gpu, lambda one: one.data.device):
            found = list(group)
            for one, pixels in zip(found, resized([one.data for one in found]), strict=True):
                if pixels is not None:
                    one.kind, one.data = PIXELS, pixels
        super()._to_pixels(elements)
