"""The evaluation protocol, from the bytes of an image file to detections, in Pillow, PyTorch and NumPy.

Source: NVIDIA DeepLearningExamples ``PyTorch/Detection/SSD`` (``ssd/utils.py``, ``ssd/evaluate.py``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from ssd_triton.common.arrays import UInt8Array
from ssd_triton.common.detections import Detections
from ssd_triton.detector.network.boxes import IMAGE_SIZE_PX
from ssd_triton.media.decoding import open_rgb

if TYPE_CHECKING:
    from ssd_triton.detector.network.ssd import ServedDetector
    from ssd_triton.detector.postprocessing.parameters import PostprocessParameters


def preprocess(encoded: bytes, name: str = "image") -> tuple[UInt8Array, tuple[int, int]]:
    """Decode and resize one image.

    EXIF orientation is not applied, the aspect ratio is not kept, and the filter is Pillow's antialiased bilinear one.

    Args:
        encoded: Content of an image file.
        name: The file's name, for messages.

    Returns:
        UINT8 [300, 300, 3] RGB, and the original (width, height) in pixels.

    Raises:
        ImageError: It cannot be decoded, or is beyond the limits of a server.
    """
    image = open_rgb(encoded, name)
    resized = image.resize((IMAGE_SIZE_PX, IMAGE_SIZE_PX), Image.Resampling.BILINEAR)
    return np.array(resized), image.size


def detect(detector: ServedDetector, encoded: bytes, parameters: PostprocessParameters | None = None) -> Detections:
    """Detect objects in one encoded image.

    Args:
        detector: On the CPU, in FP32 and evaluation mode.
        encoded: Content of an image file.
        parameters: Thresholds; None takes those of the protocol.

    Returns:
        Boxes in pixels of the original image.
    """
    # Imported here, so that `preprocess` works without PyTorch and pydantic.
    from ssd_triton.detector.network.ssd import predict
    from ssd_triton.detector.postprocessing.parameters import PostprocessParameters
    from ssd_triton.detector.postprocessing.reference import postprocess

    image, size_px = preprocess(encoded)
    loc, conf = predict(detector, image[np.newaxis])
    return postprocess(loc[0], conf[0], size_px, parameters or PostprocessParameters())
