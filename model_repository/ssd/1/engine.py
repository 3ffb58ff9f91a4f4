"""The process that works on one device for all instances of ``ssd`` and ``ssd_frames``, or of ``ssd_preprocess``.

Instances read, check and answer requests, each in a process of its own with a Python of its own; images reach this
process through memory, not through Triton. Here the images of all instances become batches. Three threads work on three
batches at once, one decodes, one starts the network, and one answers, on streams of their own. The process ends with
the last instance. For ``ssd_preprocess`` there is no network: the answer is the decoded and resized pixels.
"""

import contextlib
import faulthandler
import json
import os
import queue
import selectors
import socket
import struct
import sys
import threading
import traceback
from collections import deque
from pathlib import Path

import numpy as np
import torch
from device_memory import is_out_of_memory
from network import Network
from pixels import Pixels
from protocol import DONE, FILE, FRAME, MAX_JOB_BYTES, NOT_DECODED, WITHOUT_DECODER
from slots import Instance, Job, Part, Slot

SLOTS = 3
"""Batches at once: one is decoded, one is detected, and one waits in between or is answered."""
POLLED = 4
"""Images of a batch whose end is waited for by polling: that is quicker, and takes a core meanwhile."""
SWITCH_S = 2e-4
"""After so long a thread lets another one have Python's lock. With Python's own 5 ms, the thread that answers would
wait as long as a batch takes."""
LONELY_S = 60.0
"""An engine that no instance has asked for so long ends."""


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
        self.decoded, self.launched = queue.SimpleQueue(), queue.SimpleQueue()
        self.waiting, self.too_large = deque(), deque()
        self.slot_is_free = os.eventfd(0)
        on_gpu = device.type == "cuda"
        self.decoding, self.resizing, self.detecting = (torch.cuda.Stream(device) if on_gpu else None for _ in range(3))
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

    def decode(self):
        """Decode batches of what waits, as far as there are slots."""
        while self.too_large:
            self._halve(*self.too_large.popleft())
        while self.waiting and self.slots:
            slot = self.slots.pop()
            slot.parts = self._take()
            try:
                with torch.cuda.stream(self.decoding):
                    self._decode(slot)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                self._halve(slot, error)
            else:
                self.decoded.put(slot)

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
        # Other batches of the same size may be under way, and do not halve the limit again. A single image is tried
        # again because what PyTorch has kept of the memory is given back below.
        smaller = sum(map(len, slot.parts)) // 2 or self.limit // 2
        if smaller < self.limit:
            self.limit = smaller
            log(f"out of memory: batches of {self.limit} from now on ({_first_line(error)})")
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            slot.drop_images()
            slot.spare.clear()
            torch.cuda.empty_cache()
        self.waiting.extendleft(reversed(slot.parts))
        self.slots.append(slot)

    def _decode(self, slot):
        """Bring the images of a batch to the device, on the current stream.

        What the GPU still reads then lives in the slot until the batch is done.
        """
        files, place = [], 0
        slot.drop_images()
        for part in slot.parts:
            rows = part.job.rows[part.start : part.stop]
            slot.size_rows[place : place + len(rows)] = rows[:, 3:]
            for index, (kind, offset, size, width, height) in enumerate(rows.tolist(), part.start):
                data = part.job.instance.bytes[offset : offset + size]
                if kind == FILE:
                    files.append((data, place, part.job, index))
                elif kind == FRAME:
                    frame = part.job.instance.frame(offset, size).to(self.device, non_blocking=True)
                    slot.frames.append((place, frame, (frame.data_ptr(), width * 3, width, height)))
                else:
                    slot.pixel_rows[place] = data
                    if slot.images is not slot.pixels:
                        slot.images[place].copy_(slot.pixels[place], non_blocking=True)
                place += 1
        # An instance may not know yet that this engine has no decoder.
        decoded = [None] * len(files)
        if files and self.decoder is not None:
            decoded = self.decoder.decode([data for data, *_ in files], slot.spare)
        for image, (_, target, job, index) in zip(decoded, files, strict=True):
            job.status[index] = NOT_DECODED if image is None else DONE
            if image is not None:
                slot.decoded.append((target, image))
        if slot.is_here is not None:
            slot.is_here.record()

    def detect(self):
        """Start the network on every batch that is decoded, until the process ends."""
        while True:
            slot = self.decoded.get()
            try:
                self._detect(slot)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                self.too_large.append((slot, error))
                os.eventfd_write(self.slot_is_free, 1)
            else:
                self.launched.put(slot)

    def _detect(self, slot):
        """Resize, and start the network; on a GPU both run on while the next batches come."""
        n = sum(map(len, slot.parts))
        with torch.cuda.stream(self.resizing):
            if slot.is_here is not None:
                slot.is_here.wait()
            resized = slot.frames + [(target, image, self.resizer.source_of(image)) for target, image in slot.decoded]
            if resized:
                targets, _, sources = zip(*resized, strict=True)
                self.resizer(sources, targets, slot.images)
        if self.device.type == "cpu":
            slot.found = self.network(slot.pixels[:n], slot.sizes[:n])
            return
        self.detecting.wait_stream(self.resizing)
        with torch.cuda.stream(self.detecting):
            found = self.network(slot.images[:n], slot.sizes[:n].to(self.device, non_blocking=True))
            slot.found = slot.outputs[len(found.views[0])]
            slot.found.flat.copy_(found.flat, non_blocking=True)
            slot.done = slot.events[n > POLLED]
            slot.done.record()

    def answer(self):
        """Give every batch that is done to its instances, until the process ends."""
        while True:
            slot = self.launched.get()
            if slot.done is not None:
                slot.done.synchronize()
            slot.drop_images()
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


def _first_line(error):
    return (str(error).splitlines() or [type(error).__name__])[0]


def ending_the_process(function, device):
    """Work on a device in a thread whose exceptions end the process: instances notice, and start another one."""

    def run():
        try:
            if device.type == "cuda":
                torch.cuda.set_device(device)
            with torch.inference_mode():
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
        engine.decode()
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
    sys.setswitchinterval(SWITCH_S)
    for work in (engine.detect, engine.answer):
        threading.Thread(target=ending_the_process(work, device), daemon=True).start()
    ending_the_process(lambda: serve(listener, engine), device)()
    os._exit(0)  # not through the destructors of libraries whose work is under way


if __name__ == "__main__":
    main()
