"""Triton python backend: encoded images -> detections, where one process does everything on a GPU.

``configs/pytorch_fused_fp16.pbtxt`` runs it; with ``config.pbtxt``, ``ssd`` is an ensemble and this file is not read.
An instance needs NumPy and Pillow, the engine of its GPU PyTorch as well, and nvImageCodec to decode there.
"""

from encoded import EncodedImages
from one_process import OneProcess


class TritonPythonModel(EncodedImages, OneProcess):
    """Input IMAGE (encoded); outputs are detections."""
