"""What the instances of a model and the engine of their GPU say to each other. Needs NumPy only.

An instance has a file in memory that the engine maps, too: outputs at its beginning, then images. Over a socket of
packets it sends a job, an int64 row of :data:`FIELDS` for each image, and gets a status for each, UINT8. The engine
speaks first, once it is ready: JSON, with its outputs, or with the reason why it is of no use.
"""

import numpy as np

FILE, PIXELS, FRAME = range(3)
"""What an image is: a baseline JPEG file, 300 x 300 pixels, or a raw frame of any size; RGB."""
FIELDS = ("kind", "offset", "bytes", "width", "height")
DONE, NOT_DECODED = range(2)
"""Statuses: :data:`NOT_DECODED` is for a file that the decoder does not take."""
WITHOUT_DECODER = "the engine was lost too often with the GPU's decoder, which a restart of the server brings back"
"""Why an engine has no decoder, or is of no use."""
MAX_JOB_BYTES = 1 << 16
MEMORY_BYTES, KEPT_BYTES = 256 << 20, 64 << 20
"""Of an instance's file in memory. Only what is used is real, and beyond the second size only as long as it is used."""


class Outputs:
    """The outputs of an engine in an instance's memory, for a full batch.

    Attributes:
        views: An array [N, ...] for each output.
        end: Where images may begin.
    """

    def __init__(self, memory, batch, outputs):
        """Look at memory.

        Args:
            memory: A buffer.
            batch: N.
            outputs: What the engine says of each: the name of its type, then its shape without N.
        """
        views, self.end = [], 0
        for dtype, *shape in outputs:
            view = np.ndarray((batch, *shape), dtype, memory, self.end)
            views.append(view)
            self.end += view.nbytes
        self.views = tuple(views)


def engine_address(settings):
    """Name the socket of a server's engine for a device and a kind of outputs, in Linux's abstract namespace."""
    outputs = "detections" if "detector" in settings else "pixels"
    return f"\0ssd-triton-engine-{settings['server_pid']}-{settings['device']}-{outputs}"
