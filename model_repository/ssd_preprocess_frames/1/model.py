"""Triton python backend: raw frames -> what the detector takes. Needs NumPy and Pillow only."""

import triton_python_backend_utils as pb_utils
from answering import Element, Preprocessing, attempt
from decoding import resize
from PIL import Image
from untrusted import check_size


class TritonPythonModel(Preprocessing):
    """Input FRAME (UINT8 [N, H, W, 3] RGB); outputs ``image`` and ``original_size``."""

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
        return Element((width, height), width * height, lambda: resize(Image.fromarray(frame)))
