"""The process that works on one device for all instances of ``ssd`` and ``ssd_frames``, or of ``ssd_preprocess``.

Instances read, check and answer requests, each in a process of its own with a Python of its own; images reach this
process through memory, not through Triton. Here the images of all instances become batches. While one batch is
detected, the next is decoded, on streams of their own. One thread starts batches, another answers. The process ends
with the last instance. For ``ssd_preprocess`` there is no network: the answer is the decoded and resized pixels.
"""

import contextlib
import faulthandler
import json
import mmap
import os
import queue
import re
import selectors
import socket
import struct
import sys
import threading
import traceback
from collections import deque
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from network import SIDE_PX, Network
from pixels import Pixels
from protocol import DONE, FILE, FRAME, MAX_JOB_BYTES, NOT_DECODED, WITHOUT_DECODER, Outputs

SLOTS = 3
"""Batches at once: one is decoded, one waits for the network or is detected, one is answered."""
POLLED = 4
"""Images of a batch whose end is waited for by polling: that is quicker, and takes a core meanwhile."""
LONELY_S = 60.0
"""An engine that no instance has asked for so long ends."""
OUT_OF_MEMORY = re.compile(r"out.of.memory|alloc|CUDA Runtime failure: '#2'", re.IGNORECASE)
"""What errors of PyTorch, CUDA, cuDNN, nvJPEG and nvImageCodec say when a GPU's memory is full. Others are fatal."""


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

    def lock(self):
        """Lock its memory in place, so that a GPU reads large frames from it by itself."""
        if not self.is_locked:
            torch.cuda.cudart().cudaHostRegister(self.bytes.ctypes.data, self.bytes.nbytes, 0)
            self.is_locked = True

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
        self.found = self.decoded = self.frames = None
        # Waiting for a lone image by polling saves it some time; for a batch, that would take a core.
        self.events = [torch.cuda.Event(blocking=blocking) for blocking in (False, True)] if on_gpu else []
        self.done = None
        self.parts = []


class Engine:
    """Batches from all instances, through the decoder and the network, if there is one."""

    def __init__(self, settings, device):
        """Load everything; on a GPU that takes ten seconds.

        Raises:
            RuntimeError: There is neither a decoder nor a network, or one of them does not work.
        """
        self.device = device
        if device.type == "cuda":
            torch.cuda.set_device(device)
        self.limit = self.max_batch_size = max(settings["batch_sizes"])
        if "detector" in settings:
            models = (Path(settings["detector"]), Path(settings["postprocess"]))
            self.network = Network(*models, device, settings["batch_sizes"])
        else:
            self.network = Pixels(self.max_batch_size)
        self.history = {name: settings[name] for name in ("losses", "without_decoder")}
        self.decoder, self.resizer, reason = _image_kernels(device, settings["without_decoder"])
        if self.decoder is None and "detector" not in settings:
            raise RuntimeError(str(reason))
        self.slots = [Slot(self.network, self.max_batch_size, device) for _ in range(SLOTS)]
        self.launched = queue.SimpleQueue()
        self.waiting = deque()
        self.slot_is_free = os.eventfd(0)
        if device.type == "cuda":
            self.decoding, self.detecting = torch.cuda.Stream(device), torch.cuda.Stream(device)
        log(f"{device}, JPEG files are decoded by the {'GPU' if self.decoder else f'CPU: {reason}'}")

    def hello(self):
        """Say what an instance must know."""
        return {
            "max_batch_size": self.max_batch_size,
            "outputs": self.network.outputs,
            "decodes": self.decoder is not None,
            "resizes": self.resizer is not None,
            **self.history,
        }

    def add(self, job):
        """Let a job wait for its turn."""
        self.waiting.append(Part(job, 0, len(job.rows)))

    def launch(self):
        """Start batches of what waits, as far as there are slots."""
        while self.waiting and self.slots:
            slot = self.slots.pop()
            slot.parts = self._take()
            try:
                self._launch(slot)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                self._halve(slot, error)
            else:
                self.launched.put(slot)

    def _take(self):
        """Take as many images as a batch may have, the oldest first."""
        parts, free = [], self.limit
        while self.waiting and free:
            part = self.waiting[0]
            taken = Part(part.job, part.start, min(part.stop, part.start + free))
            parts.append(taken)
            free -= len(taken)
            if taken.stop == part.stop:
                self.waiting.popleft()
            else:
                part.start = taken.stop
        return parts

    def _halve(self, slot, error):
        """Try a batch again in smaller parts."""
        if self.limit == 1:
            raise error
        self.limit //= 2
        log(f"out of memory: batches of {self.limit} from now on ({_first_line(error)})")
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            slot.decoded = slot.frames = None
            slot.spare.clear()
            torch.cuda.empty_cache()
        self.waiting.extendleft(reversed(slot.parts))
        self.slots.append(slot)

    def _launch(self, slot):
        """Start everything that a batch needs; on a GPU it runs on while the next batch is decoded."""
        n = sum(map(len, slot.parts))
        if self.device.type == "cpu":
            self._load(slot)
            slot.found = self.network(slot.pixels[:n], slot.sizes[:n])
            return
        with torch.cuda.stream(self.decoding):
            self._load(slot)
        self.detecting.wait_stream(self.decoding)
        with torch.cuda.stream(self.detecting):
            found = self.network(slot.images[:n], slot.sizes[:n].to(self.device, non_blocking=True))
            slot.found = slot.outputs[len(found.views[0])]
            slot.found.flat.copy_(found.flat, non_blocking=True)
            slot.done = slot.events[n > POLLED]
            slot.done.record()

    def _load(self, slot):
        """Bring the images of a batch into its slot, on the current stream.

        What the GPU still reads then lives in the slot until the batch is done.
        """
        files, sources, targets, place = [], [], [], 0
        slot.frames = []
        for part in slot.parts:
            rows = part.job.rows[part.start : part.stop]
            slot.size_rows[place : place + len(rows)] = rows[:, 3:]
            for index, (kind, offset, size, width, height) in enumerate(rows.tolist(), part.start):
                data = part.job.instance.bytes[offset : offset + size]
                if kind == FILE:
                    files.append((data, place, part.job, index))
                elif kind == FRAME:
                    part.job.instance.lock()
                    slot.frames.append(torch.from_numpy(data).to(self.device, non_blocking=True))
                    sources.append((slot.frames[-1].data_ptr(), width * 3, width, height))
                    targets.append(place)
                else:
                    slot.pixel_rows[place] = data
                    if slot.images is not slot.pixels:
                        slot.images[place].copy_(slot.pixels[place], non_blocking=True)
                place += 1
        # An instance may not know yet that this engine has no decoder.
        slot.decoded = [None] * len(files)
        if files and self.decoder is not None:
            slot.decoded = self.decoder.decode([data for data, *_ in files], slot.spare)
        for image, (_, target, job, index) in zip(slot.decoded, files, strict=True):
            job.status[index] = NOT_DECODED if image is None else DONE
            if image is not None:
                sources.append(self.resizer.source_of(image))
                targets.append(target)
        if sources:
            self.resizer(sources, targets, slot.images)

    def answer(self):
        """Give every batch that is done to its instances, until the process ends."""
        while True:
            slot = self.launched.get()
            if slot.done is not None:
                slot.done.synchronize()
            slot.decoded = slot.frames = None
            first = 0
            for part in slot.parts:
                for target, view in zip(part.job.instance.outputs.views, slot.found.views, strict=True):
                    target[part.start : part.stop] = view[first : first + len(part)].numpy()
                first += len(part)
                part.job.unfinished -= len(part)
                if part.job.unfinished == 0:
                    # An instance that has ended needs no answer.
                    with contextlib.suppress(OSError):
                        part.job.instance.connection.send(part.job.status.tobytes())
            self.slots.append(slot)
            os.eventfd_write(self.slot_is_free, 1)


def _image_kernels(device, without_decoder):
    """Give the decoder and the resizer of a GPU, or None for each that it has not or must not have, and why."""
    if device.type == "cpu":
        return None, None, "no GPU"
    from images import HardwareDecoder, Resizer

    resizer = Resizer(device)
    if without_decoder:
        return None, resizer, WITHOUT_DECODER
    try:
        with torch.cuda.device(device):
            return HardwareDecoder(device), resizer, ""
    except (ImportError, RuntimeError) as error:
        return None, resizer, error


def is_out_of_memory(error):
    """Whether an error means that the GPU's memory is full, and no more: work in smaller parts may succeed."""
    return isinstance(error, torch.OutOfMemoryError) or OUT_OF_MEMORY.search(str(error)) is not None


def _first_line(error):
    return (str(error).splitlines() or [type(error).__name__])[0]


def ending_the_process(function):
    """Let an exception in a thread end the process: instances notice, and start another one."""

    def run():
        try:
            function()
        except BaseException as error:
            traceback.print_exc()
            log(f"ends: {_first_line(error)}")
            os._exit(1)

    return run


def serve(listener, engine):
    """Accept instances and their jobs until the last instance has ended."""
    selector = selectors.DefaultSelector()
    selector.register(listener, selectors.EVENT_READ)
    selector.register(engine.slot_is_free, selectors.EVENT_READ)
    instances = {}
    while True:
        engine.launch()
        ready = selector.select(None if instances else LONELY_S)
        if not ready:
            return
        for key, _ in ready:
            if key.fileobj == engine.slot_is_free:
                os.eventfd_read(engine.slot_is_free)
                continue
            if key.fileobj is listener:
                connection, _ = listener.accept()
                try:
                    instances[connection] = _welcome(connection, engine)
                except OSError:  # another user, or an instance that has ended while the engine was loading
                    connection.close()
                else:
                    selector.register(connection, selectors.EVENT_READ)
                continue
            packet = _receive(key.fileobj)
            if packet:
                rows = np.frombuffer(packet, np.int64).reshape(-1, 5)
                engine.add(Job(instances[key.fileobj], rows))
                continue
            selector.unregister(key.fileobj)
            key.fileobj.close()
            del instances[key.fileobj]
            if not instances and all(other.fileobj is not listener for other, _ in selector.select(0)):
                return


def refuse(listener, reason, is_over=lambda: True):
    """Give everyone who asks for this engine the reason why it is of no use, until nobody does and it is over."""
    listener.settimeout(LONELY_S)
    while True:
        try:
            connection, _ = listener.accept()
        except TimeoutError:
            if is_over():
                return
            continue
        with connection, contextlib.suppress(OSError):
            connection.send(json.dumps({"refuses": reason}).encode())


def _has_ended(pid):
    return not Path(f"/proc/{pid}").exists()


def _welcome(connection, engine):
    """Tell an instance what it must know, and take its memory.

    Raises:
        OSError: It runs as another user, or has ended.
    """
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    if struct.unpack("3i", credentials)[1] != os.getuid():
        raise PermissionError
    connection.send(json.dumps(engine.hello()).encode())
    return Instance(connection, engine.max_batch_size, engine.network.outputs)


def _receive(connection):
    try:
        return connection.recv(MAX_JOB_BYTES)
    except OSError:
        return b""


def log(message):
    """Write a line to the server's log."""
    print(f"ssd engine: {message}", file=sys.stderr, flush=True)


def main():
    """Serve the instances of one server and one device."""
    faulthandler.enable()  # a crash in a library leaves the stack of every thread in the log
    settings = json.loads(sys.argv[1])
    listener = socket.socket(fileno=settings["listener"])
    # Who listens is who instances see at the other end.
    listener.listen()
    if settings["without_decoder"] and "detector" not in settings:
        log(f"{settings['device']}, JPEG files are decoded by the CPU: {WITHOUT_DECODER}")
        # As long as there is a server: an instance that had nothing to do meanwhile must not start another one.
        refuse(listener, WITHOUT_DECODER, lambda: _has_ended(settings["server_pid"]))
        return
    device = torch.device(settings["device"])
    if device.type == "cuda":
        torch.set_num_threads(1)  # what is left for the CPU is too small to be shared
    try:
        engine = Engine(settings, device)
    except (ImportError, OSError, RuntimeError) as error:
        if "detector" in settings:
            raise
        refuse(listener, _first_line(error))
        return
    threading.Thread(target=ending_the_process(engine.answer), daemon=True).start()
    with torch.inference_mode():
        ending_the_process(lambda: serve(listener, engine))()
    os._exit(0)  # not through the destructors of libraries whose work is under way


if __name__ == "__main__":
    main()
