# Written from ssd/1/encoded.py by the build, do not edit. Digest: aab72f82a64140ee
"""Encoded images of a request: which of them an engine decodes, and how all others are decoded here."""

import triton_python_backend_utils as pb_utils
from answering import Element, attempt
from baseline import check_file
from decoding import DecodingLimits, open_image
from isolation import DecoderProcesses
from protocol import FILE


class EncodedImages:
    """The input IMAGE of a model, which is ``Preprocessing``, too: one file for each element.

    Attributes:
        engine: An ``EngineClient``, or None where all files are decoded here.
    """

    engine = None

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
        """See ``Preprocessing``."""
        encoded = pb_utils.get_input_tensor_by_name(request, "IMAGE").as_numpy().reshape(-1)
        return [self._element(data) for data in encoded]

    def _element(self, data):
        """Check a file for the engine, or give a function that opens it here."""
        has_decoder = self.engine is not None and self.engine.decodes
        found = attempt(lambda: check_file(data, self.limits)) if has_decoder else None
        if found is None:
            return lambda: self._open(data)
        if isinstance(found, str):
            return found
        size_px, work_px, engine_data = found
        return Element(size_px, work_px, lambda: self._open(data).load(), FILE, engine_data)

    def _open(self, data):
        image, work_px = open_image(data, self.limits)
        return Element(image.size, work_px, lambda: self.decoders.decode_opened(data, image, work_px))
