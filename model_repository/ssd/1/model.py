"""Triton python backend: encoded images -> detections, where one process does everything on a GPU.

``configs/pytorch_fused_fp16.pbtxt`` runs it; with ``config.pbtxt``, ``ssd`` is an ensemble and this file is not read.
An instance needs NumPy and Pillow, the engine of its GPU PyTorch as well, and nvImageCodec to decode there.
"""

import triton_python_backend_utils as pb_utils
from answering import attempt
from baseline import baseline_size
from decoding import DecodingLimits, decode
from isolation import ISOLATE_ABOVE_PX, DecoderProcesses
from one_process import Element, OneProcess
from protocol import FILE, PIXELS
from untrusted import PixelBudget, RefusedInputError, check_size, jpeg_work_px


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
        """Check a file for the engine, or start to decode it here."""
        size_px = baseline_size(data) if self.engine.decodes and len(data) <= self.limits.max_file_bytes else None
        if size_px is None:
            return self.pool.submit(attempt, lambda: Element(PIXELS, *self._decode(data, budget)))
        try:
            check_size(*size_px, min_side_px=self.limits.min_side_px, max_pixels=self.limits.max_pixels)
            budget.take(jpeg_work_px(size_px[0] * size_px[1], data))
        except RefusedInputError as error:
            return str(error)
        return Element(FILE, data, size_px, lambda: self._decode(data)[0])

    def _decode(self, data, budget=None):
        isolated = self.isolated.decode
        return decode(data, self.limits, budget, isolated=isolated, isolate_above_px=ISOLATE_ABOVE_PX)
