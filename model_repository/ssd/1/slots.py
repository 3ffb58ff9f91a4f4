"""The engine's batches: whose images they hold, and the memory that they take from decoding to answer."""

import mmap
import os
import socket
from dataclasses import dataclass

import numpy as np
import torch
from network import SIDE_PX
from protocol import DONE, KEPT_BYTES, Outputs


class Instance:
    """A connected instance of a model."""

    def __init__(self, connection, max_batch_size, outputs):
        """Receive and map its memory."""
        self.is_locked = False
        _, descriptors, _, _ = socket.recv_fds(connection, 1, 1)
        if not descriptors:
            raise ConnectionError
        self.connection = connection
        self.memory = mmap.mmap(descriptors[0], 0)
        os.close(descriptors[0])
        self.bytes = np.frombuffer(self.memory, np.uint8)
        self.outputs = Outputs(self.memory, max_batch_size, outputs)

    def frame(self, offset, size):
        """Give a frame, UINT8 [size], to be copied to a GPU: what the GPU reads by itself is locked in place.

        CUDA copies nothing that is locked in part.
        """
        if not self.is_locked:
            torch.cuda.cudart().cudaHostRegister(self.bytes.ctypes.data, KEPT_BYTES, 0)
            self.is_locked = True
        data = self.bytes[offset : offset + size]
        return torch.from_numpy(data.copy() if offset < KEPT_BYTES < offset + size else data)

    def __del__(self):
        """Unlock its memory: nothing that is on its way refers to it any more."""
        if self.is_locked:
            torch.cuda.cudart().cudaHostUnregister(self.bytes.ctypes.data)


class Job:
    """The images that an instance sent together."""

    def __init__(self, instance, rows):
        """Take rows of the protocol's fields."""
        self.instance = instance
        self.rows = rows
        self.status = np.full(len(rows), DONE, np.uint8)
        self.unfinished = len(rows)


@dataclass
class Part:
    """A run of a job's images within a batch."""

    job: Job
    start: int
    stop: int

    def __len__(self):
        return self.stop - self.start


class Slot:
    """Memory of one batch from its decoding to its answer."""

    def __init__(self, network, batch, device):
        """Reserve it."""
        on_gpu = device.type == "cuda"
        self.pixels = torch.zeros([batch, SIDE_PX, SIDE_PX, 3], dtype=torch.uint8, pin_memory=on_gpu)
        self.images = torch.zeros_like(self.pixels, device=device) if on_gpu else self.pixels
        self.sizes = torch.ones([batch, 2], dtype=torch.int32, pin_memory=on_gpu)
        self.size_rows, self.pixel_rows = self.sizes.numpy(), self.pixels.numpy().reshape(batch, -1)
        self.spare = []
        self.outputs = network.host_outputs(pinned=on_gpu)
        self.found = None
        self.drop_images()
        self.is_here = torch.cuda.Event() if on_gpu else None
        # Waiting for a lone image by polling saves it some time; for a batch, that would take a core.
        self.events = [torch.cuda.Event(blocking=blocking) for blocking in (False, True)] if on_gpu else []
        self.done = None
        self.parts = []

    def drop_images(self):
        """Let go of what only the GPU still read: (place, image) and (place, frame, its source for the resizer)."""
        self.decoded, self.frames = [], []
