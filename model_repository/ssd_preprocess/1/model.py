"""Triton python backend: encoded images -> what the detector takes. Needs NumPy and Pillow only."""

import triton_python_backend_utils as pb_utils
from answering import Element, Preprocessing
from decoding import DecodingLimits, open_image
from isolation import DecoderProcesses


class TritonPythonModel(Preprocessing):
    """Input IMAGE (encoded); outputs ``image`` and ``original_size``."""

    def initialize(self, args):
        """Read the limits from the model's own configuration."""
        super().initialize(args)
        self.limits = DecodingLimits.from_parameters(self.parameters)
        self.decoders = DecoderProcesses(self.threads, self.limits, float(self.parameters["max_cpu_s"]["string_value"]))

    def finalize(self):
        """Let threads and processes end."""
        super().finalize()
        self.decoders.close()

    def elements(self, request):
        """See the base class."""
        encoded = pb_utils.get_input_tensor_by_name(request, "IMAGE").as_numpy().reshape(-1)
        return [lambda data=data: self._open(data) for data in encoded]

    def _open(self, data):
        image, work_px = open_image(data, self.limits)
        return Element(image.size, work_px, lambda: self.decoders.decode_opened(data, image, work_px))
