"""Triton python backend: encoded images -> detections, where one process does everything on a GPU.

``configs/pytorch_fused_fp16.pbtxt`` runs it; with ``config.pbtxt``, ``ssd`` is an ensemble and this file is not read.
An instance needs NumPy and Pillow, the engine of its GPU PyTorch as well, and nvImageCodec to decode there.
"""

import triton_python_backend_utils as pb_utils
from answering import attempt
from baseline import baseline_size
from decoding import DecodingLimits, open_image
from isolation import DecoderProcesses
from one_process import EngineElement, OneProcess
from protocol import FILE
from untrusted import check_size, jpeg_work_px


class TritonPythonModel(OneProcess):
    """Input IMAGE (encoded); outputs are detections."""

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
        return [self._element(data) for data in encoded]

    def _element(self, data):
        """Check a file for the engine, or give a function that opens it here."""
        size_px = baseline_size(data) if self.engine.decodes and len(data) <= self.limits.max_file_bytes else None
        if size_px is None:
            return lambda: self._open(data)
        return attempt(lambda: self._file(data, size_px))

    def _file(self, data, size_px):
        check_size(*size_px, min_side_px=self.limits.min_side_px, max_pixels=self.limits.max_pixels)
        work_px = jpeg_work_px(size_px[0] * size_px[1], data)
        return EngineElement(size_px, work_px, lambda: self._open(data).load(), FILE, data)

    def _open(self, data):
        image, work_px = open_image(data, self.limits)
        return EngineElement(image.size, work_px, lambda: self.decoders.decode_opened(data, image, work_px))
