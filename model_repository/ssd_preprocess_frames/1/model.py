"""Triton python backend: raw frames -> what the detector takes. Needs NumPy and Pillow only."""

import triton_python_backend_utils as pb_utils
from answering import Preprocessing
from decoding import resize
from PIL import Image
from untrusted import PixelBudget, check_size


class TritonPythonModel(Preprocessing):
    """Input FRAME (UINT8 [N, H, W, 3] RGB); outputs ``image`` and ``original_size``."""

    def initialize(self, args):
        """Read the limits from the model's own configuration."""
        super().initialize(args)
        self.sizes = {name: int(self.parameters[name]["string_value"]) for name in ("min_side_px", "max_pixels")}
        self.max_request_pixels = int(self.parameters["max_request_pixels"]["string_value"])

    def loaders(self, request):
        """See the base class."""
        frames = pb_utils.get_input_tensor_by_name(request, "FRAME").as_numpy()
        budget = PixelBudget(self.max_request_pixels)
        return [lambda frame=frame: self._load(frame, budget) for frame in frames]

    def _load(self, frame, budget):
        height, width = frame.shape[:2]
        check_size(width, height, **self.sizes)
        budget.take(width * height)
        return resize(Image.fromarray(frame)), (width, height)
