"""Triton python backend: encoded images -> what the detector takes. Needs NumPy and Pillow only."""

import triton_python_backend_utils as pb_utils
from answering import Preprocessing
from decoding import DecodingLimits, decode
from isolation import ISOLATE_ABOVE_PX, DecoderProcesses
from untrusted import PixelBudget


class TritonPythonModel(Preprocessing):
    """Input IMAGE (encoded); outputs ``image`` and ``original_size``."""

    def initialize(self, args):
        """Read the limits from the model's own configuration."""
        super().initialize(args)
        self.limits = DecodingLimits.from_parameters(self.parameters)
        self.isolated = DecoderProcesses(self.threads, self.limits, float(self.parameters["max_cpu_s"]["string_value"]))

    def finalize(self):
        """Let threads and processes end."""
        super().finalize()
        self.isolated.close()

    def loaders(self, request):
        """See the base class."""
        encoded = pb_utils.get_input_tensor_by_name(request, "IMAGE").as_numpy().reshape(-1)
        budget = PixelBudget(self.limits.max_request_pixels)
        return [lambda data=data: self._load(data, budget) for data in encoded]

    def _load(self, data, budget):
        return decode(data, self.limits, budget, isolated=self.isolated.decode, isolate_above_px=ISOLATE_ABOVE_PX)
