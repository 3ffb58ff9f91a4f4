# Written from ssd/1/engine_client.py by the build, do not edit. Digest: e3bbe3050adb3f35
"""An instance's connection to the engine that works for it. Needs NumPy only.

The first instance of a server starts the engine. One that crashes or stalls is replaced, and after :data:`MAX_LOSSES`
by one without the GPU's decoder; where that fails, the instance ends with the reason, and Triton answers for it.
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
from protocol import KEPT_BYTES, MAX_JOB_BYTES, MEMORY_BYTES, NOT_DECODED, Outputs, engine_address

READY_S = 300.0
"""An engine loads PyTorch and captures graphs."""
STALLED_S = 30.0
"""An engine on a GPU that has not answered for so long is ended: a batch takes it some milliseconds."""
MAX_LOSSES, LOSSES_WITHIN_S = 2, 600.0
"""After so many losses within this time, no engine of this server gets the GPU's decoder any more: what crashes it may
be sent again and again, and every loss costs seconds. Two, since one may have another reason."""
MAX_STARTS = 3
"""Engines that an instance starts until it gives up: one may end because of what another instance sends it at once."""
ENDING_S = 1.0
"""The connection to a process that crashes ends before the process has."""
ENVIRONMENT = {"PYNVIMGCODEC_VERBOSITY": "0", "CUDA_DEVICE_MAX_CONNECTIONS": "32"}
"""Of the engine. With CUDA's default of 8 connections to the GPU, streams of decoder and network share some, and what
shares one takes turns (CUDA's programming guide, environment variables)."""
NEEDED_PACKAGES = "torch nvidia-nvimgcodec-cu13 nvidia-nvjpeg"
_PROGRAM = Path(__file__).resolve().parents[2] / "ssd" / "1" / "engine.py"


class EngineLostError(RuntimeError):
    """The engine crashed or stalled, and what it was doing is lost: :meth:`EngineClient.reconnect` gets another one.

    Attributes:
        was_asked: Whether it may have crashed at what it was asked; otherwise it had crashed before.
    """

    def __init__(self, reason, *, was_asked):
        """Give the reason, as far as it is known."""
        super().__init__(reason)
        self.was_asked = was_asked


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
        self._settings = {**settings, "server_pid": os.getppid(), "losses": {}, "without_decoder": False}
        descriptor = os.memfd_create("ssd images", os.MFD_CLOEXEC)
        os.ftruncate(descriptor, MEMORY_BYTES)
        self._descriptor = descriptor
        self._memory = mmap.mmap(descriptor, MEMORY_BYTES)
        self._bytes = np.frombuffer(self._memory, np.uint8)
        self._started = None
        self._is_closed = False
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
            images: (kind, data, (width, height)) each; data are bytes or UINT8. One or more: an empty packet would
                look like the end of the connection.

        Returns:
            The outputs, views that the next call overwrites, and the indices of files that were not decoded.

        Raises:
            EngineLostError: See there.
            ValueError: There are no images.
        """
        if not images:
            raise ValueError("got no images, expected one or more")
        rows = np.empty((len(images), 5), np.int64)
        offset = self._outputs.end
        for row, (kind, data, size_px) in zip(rows, images, strict=True):
            flat = np.frombuffer(data, np.uint8)
            self._bytes[offset : offset + len(flat)] = flat
            row[:] = (kind, offset, len(flat), *size_px)
            offset += len(flat)
        try:
            self._connection.send(rows.tobytes())
        except OSError:
            raise self._lost(was_asked=False) from None
        try:
            status = self._connection.recv(MAX_JOB_BYTES)
        except TimeoutError:
            raise self._lost(was_asked=True, has_stalled=True) from None
        except OSError:
            status = b""
        if len(status) != len(images):
            raise self._lost(was_asked=True)
        if offset > KEPT_BYTES:
            self._memory.madvise(mmap.MADV_REMOVE, KEPT_BYTES, offset - KEPT_BYTES)
        failed = np.flatnonzero(np.frombuffer(status, np.uint8) == NOT_DECODED)
        return tuple(view[: len(images)] for view in self._outputs.views), failed

    def reconnect(self):
        """Connect to the next engine, and start it if nobody has; all that takes as long as it does for the first one.

        Raises:
            RuntimeError: See the constructor.
        """
        self._connect()
        if self._is_closed:
            self._connection.close()

    def close(self):
        """Let the engine end, if this is its last instance."""
        self._is_closed = True
        self._connection.close()

    def _lost(self, *, was_asked, has_stalled=False):
        """End what is left of the engine, and remember the loss; return the error that says so."""
        self._connection.close()
        self.decodes = False
        what = f"did not answer for {STALLED_S:.0f} s" if has_stalled else self._ending()
        self._started = None
        if was_asked:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._engine_pid, signal.SIGKILL)
        self._count_loss(self._engine_pid)
        return EngineLostError(f"the engine {what}, and is replaced", was_asked=was_asked)

    def _count_loss(self, engine_pid):
        """Remember a loss, and whether it is one too many for the GPU's decoder."""
        losses = self._settings["losses"]
        losses[str(engine_pid)] = now_s = time.monotonic()
        if sum(now_s - loss_s <= LOSSES_WITHIN_S for loss_s in losses.values()) >= MAX_LOSSES:
            self._settings["without_decoder"] = True

    def _ending(self):
        """Say how an engine ended; only the instance that has started it can know more than that it did."""
        if self._started is None or self._started.pid != self._engine_pid:
            return "crashed"
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = self._started.wait(ENDING_S)
            return f"ended with code {code}" if code >= 0 else f"was ended by signal {signal.Signals(-code).name}"
        return "crashed"

    def _connect(self):
        deadline_s, failed_starts = time.monotonic() + READY_S, 0
        while not self._is_connected():
            code = None if self._started is None else self._started.poll()
            failed_starts += bool(code)
            if time.monotonic() > deadline_s or failed_starts == MAX_STARTS:
                raise RuntimeError(f"the engine for {self._settings['device']} did not start, its own lines say why")
            # One that ended without an error had no instance any more.
            if self._started is None or code is not None:
                self._started = start_engine(self._settings, engine_address(self._settings))
            time.sleep(0.2)

    def _is_connected(self):
        """Connect to an engine that is there; False if there is none, or it ends meanwhile."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        connection.settimeout(READY_S)
        says, engine_pid = None, 0
        try:
            connection.connect(engine_address(self._settings))
            credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
            engine_pid, user, _ = struct.unpack("3i", credentials)
            if user != os.getuid():
                raise RuntimeError(f"another user has an engine at {engine_address(self._settings)[1:]}")
            says = json.loads(connection.recv(MAX_JOB_BYTES) or "null")
            if says and "refuses" not in says:
                socket.send_fds(connection, [b"m"], [self._descriptor])
        except OSError:
            says = None
        if not says:
            connection.close()
            if engine_pid:
                # It crashed, perhaps at what another instance sent, before it was this one's turn.
                self._count_loss(engine_pid)
            return False
        if reason := says.get("refuses"):
            connection.close()
            raise RuntimeError(reason)
        # What other instances saw of earlier engines, so that whoever starts the next one knows it.
        self._settings["losses"].update(says["losses"])
        self._settings["without_decoder"] |= says["without_decoder"]
        self._connection, self._engine_pid = connection, engine_pid
        self.resizes, self.max_batch_size = says["resizes"], says["max_batch_size"]
        self._outputs = Outputs(self._memory, self.max_batch_size, says["outputs"])
        connection.settimeout(STALLED_S if self.resizes else None)
        self.decodes = says["decodes"]
        return True


def start_engine(settings, address):
    """Start an engine with the Python, and the packages, of this process; None if another process has started one.

    Args:
        settings: See ``engine.py``.
        address: Where instances look for it, see :func:`protocol.engine_address`.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with listener:
        try:
            listener.bind(address)
        except OSError:
            return None
        return _start_program({**settings, "listener": listener.fileno()})


def _start_program(settings):
    is_python = Path(sys.executable or "").name.startswith("python")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **ENVIRONMENT}
    command = [sys.executable if is_python else "python3", str(_PROGRAM), json.dumps(settings)]
    return subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, pass_fds=[settings["listener"]])
