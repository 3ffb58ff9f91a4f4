# Written from ssd/1/engine_client.py by the build, do not edit. Digest: 82aeba273feea475
"""An instance's connection to the engine that works for it. Needs NumPy only.

The first instance of a server starts the engine. One that crashes or stalls is replaced; where that fails, the instance
ends with the reason, and Triton answers for it.
"""

import contextlib
import json
import mmap
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from protocol import MAX_JOB_BYTES, MEMORY_BYTES, NOT_DECODED, Outputs, engine_address

READY_S = 300.0
"""An engine loads PyTorch and captures graphs."""
STALLED_S = 30.0
"""An engine on a GPU that has not answered for so long is ended: a batch takes it some milliseconds."""
NEEDED_PACKAGES = "torch nvidia-nvimgcodec-cu13 nvidia-nvjpeg"
_PROGRAM = Path(__file__).resolve().parents[2] / "ssd" / "1" / "engine.py"


class EngineLostError(RuntimeError):
    """The engine crashed or stalled, and another one is ready: what it was doing is lost."""


class EngineClient:
    """One instance's side.

    Attributes:
        decodes: Whether the engine decodes JPEG files.
        resizes: Whether it resizes frames.
        max_batch_size: Images of a job at most.
    """

    def __init__(self, settings):
        """Connect, to an engine of one's own where there is none.

        Args:
            settings: See ``engine.py``.

        Raises:
            RuntimeError: No engine can be started, or it has nothing to offer.
        """
        self._settings = {**settings, "server_pid": os.getppid()}
        descriptor = os.memfd_create("ssd images", os.MFD_CLOEXEC)
        os.ftruncate(descriptor, MEMORY_BYTES)
        self._descriptor = descriptor
        self._memory = mmap.mmap(descriptor, MEMORY_BYTES)
        self._bytes = np.frombuffer(self._memory, np.uint8)
        self._connect()

    def jobs(self, images):
        """Split images into runs that a job and the memory can hold.

        Args:
            images: Their sizes in bytes.

        Yields:
            Slices of the images.
        """
        start, free = 0, MEMORY_BYTES - self._outputs.end
        for index, size in enumerate(images):
            if index - start == self.max_batch_size or size > free:
                yield slice(start, index)
                start, free = index, MEMORY_BYTES - self._outputs.end
            free -= size
        if start < len(images):
            yield slice(start, len(images))

    def ask(self, images):
        """Have the images of one job processed.

        Args:
            images: (kind, data, (width, height)) each; data are bytes or UINT8.

        Returns:
            The outputs, views that the next call overwrites, and the indices of files that were not decoded.

        Raises:
            EngineLostError: See there.
        """
        rows = np.empty((len(images), 5), np.int64)
        offset = self._outputs.end
        for row, (kind, data, size_px) in zip(rows, images, strict=True):
            flat = np.frombuffer(data, np.uint8)
            self._bytes[offset : offset + len(flat)] = flat
            row[:] = (kind, offset, len(flat), *size_px)
            offset += len(flat)
        try:
            self._connection.send(rows.tobytes())
            status = self._connection.recv(MAX_JOB_BYTES)
        except OSError:
            status = b""
        if len(status) != len(images):
            self._replace()
            raise EngineLostError
        failed = np.flatnonzero(np.frombuffer(status, np.uint8) == NOT_DECODED)
        return tuple(view[: len(images)] for view in self._outputs.views), failed

    def close(self):
        """Let the engine end, if this is its last instance."""
        self._connection.close()

    def _replace(self):
        """End what is left of the engine, and connect to the next one."""
        self.close()
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._engine_pid, signal.SIGKILL)
        self._connect()

    def _connect(self):
        address = engine_address(self._settings)
        started, deadline_s = None, time.monotonic() + READY_S
        while True:
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            connection.settimeout(READY_S)
            try:
                connection.connect(address)
                hello = connection.recv(MAX_JOB_BYTES)
            except OSError:
                hello = b""
            if hello:
                break
            connection.close()
            if time.monotonic() > deadline_s or (started and started.poll() not in (None, 0)):
                raise RuntimeError(f"the engine for {self._settings['device']} did not start, its own lines say why")
            # One that ended without an error had no instance any more.
            if started is None or started.poll() == 0:
                started = _start(self._settings, address)
            time.sleep(0.2)
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        self._engine_pid, user, _ = struct.unpack("3i", credentials)
        if user != os.getuid():
            raise RuntimeError(f"another user has an engine at {address[1:]}")
        says = json.loads(hello)
        if reason := says.get("refuses"):
            connection.close()
            raise RuntimeError(reason)
        self.decodes, self.resizes, self.max_batch_size = says["decodes"], says["resizes"], says["max_batch_size"]
        socket.send_fds(connection, [b"m"], [self._descriptor])
        connection.settimeout(STALLED_S if self.resizes else None)
        self._connection = connection
        self._outputs = Outputs(self._memory, self.max_batch_size, says["outputs"])


def _start(settings, address):
    """Start an engine with the Python, and the packages, of this process; None if another instance has started one."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with listener:
        try:
            listener.bind(address)
        except OSError:
            return None
        return _start_program({**settings, "listener": listener.fileno()})


def _start_program(settings):
    is_python = Path(sys.executable or "").name.startswith("python")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYNVIMGCODEC_VERBOSITY": "0"}
    command = [sys.executable if is_python else "python3", str(_PROGRAM), json.dumps(settings)]
    return subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, pass_fds=[settings["listener"]])
