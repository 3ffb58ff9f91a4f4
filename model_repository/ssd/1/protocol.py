"""What the instances of a model and the engine of their GPU say to each other. Needs NumPy only.

An instance has a file in memory that the engine maps, too: detections at its beginning, then images. Over a socket of
packets it sends a job, an int64 row of :data:`FIELDS` for each image, and gets a status for each, UINT8. The engine
speaks first, once it is ready: JSON.
"""

import numpy as np

FILE, PIXELS, FRAME = range(3)
"""What an image is: a baseline JPEG file, 300 x 300 pixels, or a raw frame of any size; RGB."""
FIELDS = ("kind", "offset", "bytes", "width", "height")
DONE, NOT_DECODED = range(2)
"""Statuses: :data:`NOT_DECODED` is for a file that the decoder does not take."""
MAX_JOB_BYTES = 1 << 16
MEMORY_BYTES = 256 << 20
"""Of an instance's file in memory; only what is used is real."""


class Outputs:
    """The models' four outputs in an instance's memory, for a full batch.

    Attributes:
        views: ``num_detections`` INT32 [N, 1], ``detection_boxes`` FP32 [N, K, 4], ``detection_scores`` FP32 [N, K] and
            ``detection_classes`` INT32 [N, K].
        end: Where images may begin.
    """

    def __init__(self, memory, batch, detections):
        """Look at memory.

        Args:
            memory: A buffer.
            batch: N.
            detections: K.
        """
        shapes = ((np.int32, 1), (np.float32, detections, 4), (np.float32, detections), (np.int32, detections))
        views, self.end = [], 0
        for dtype, *shape in shapes:
            view = np.ndarray((batch, *shape), dtype, memory, self.end)
            views.append(view)
            self.end += view.nbytes
        self.views = tuple(views)


def engine_address(server_pid, device):
    """Name the socket of a server's engine for a device, in Linux's abstract namespace."""
    return f"\0ssd-triton-engine-{server_pid}-{device}"
