"""Decoding in processes that can be stopped: a file that keeps a decoder busy, or crashes it, is refused alone.

Run as a program, this is such a process: files come in on standard input, pixels go out on standard output.
"""

import contextlib
import json
import queue
import resource
import shutil
import signal
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
from decoding import SIZE_PX, DecodingLimits, decode, decode_opened
from untrusted import RefusedInputError

MAX_MEMORY_BYTES = 2 << 30
"""Address space of a process: an image of 50 million pixels takes up to 0.6 GB while it is decoded and resized."""
ISOLATE_ABOVE_PX = 8_000_000
"""Work, in pixels, above which an image is decoded in a process of its own: some 0.1 s of a core. What handing it over
costs, about 2 ms, is little beside that."""
_LENGTH = struct.Struct("<Q")
_DECODED, _REFUSED = b"+", b"-"


class DecoderProcesses:
    """Processes that decode one file each at a time, started when they are first needed."""

    def __init__(self, count, limits, max_cpu_s):
        """Start nothing yet.

        Args:
            count: Files decoded at once.
            limits: Limits of decoding.
            max_cpu_s: Seconds of a core that one file may take.
        """
        self.limits = limits
        self.max_cpu_s = max_cpu_s
        self.idle = queue.LifoQueue()
        for _ in range(count):
            self.idle.put(None)

    def decode_opened(self, data, image, work_px):
        """File bytes and its opened image -> UINT8 [300, 300, 3] RGB, in a process of its own where that may take long.

        Raises:
            RefusedInputError: Its reason, or the file took too long or ended the process.
        """
        if work_px > ISOLATE_ABOVE_PX or image.format == "TIFF":
            return self.decode(data)
        return decode_opened(image, self.limits)

    def decode(self, data):
        """File bytes -> UINT8 [300, 300, 3] RGB, in a process of its own.

        Raises:
            RefusedInputError: Its reason, or the file took too long or ended the process.
        """
        process = self.idle.get()
        try:
            process = process or self._start()
            status, answer = _ask(process, data)
        except (OSError, EOFError):
            reason = self._end(process)
            process = None
            raise RefusedInputError(reason) from None
        finally:
            self.idle.put(process)
        if status == _REFUSED:
            raise RefusedInputError(answer.decode())
        return np.frombuffer(answer, np.uint8).reshape(SIZE_PX, SIZE_PX, 3)

    def close(self):
        """End the processes; none may be in use."""
        while not self.idle.empty():
            process = self.idle.get()
            if process is not None:
                self._end(process)

    def _start(self):
        python = sys.executable if Path(sys.executable or "").name.startswith("python") else shutil.which("python3")
        settings = {"limits": vars(self.limits), "max_cpu_s": self.max_cpu_s}
        # -E and -s: what the server's environment says about Python is not meant for this.
        command = [python, "-E", "-s", str(Path(__file__).resolve()), json.dumps(settings)]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def _end(self, process):
        """End a process, and say why it ended by itself."""
        if process is None:
            return "no process could be started to decode it: the server has too little memory or too many processes"
        # What could not be written any more is lost with the process.
        with contextlib.suppress(OSError):
            process.stdin.close()
        process.stdout.close()
        try:
            code = process.wait(1)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
        if code == -signal.SIGPROF:
            return f"got an image that takes more than {self.max_cpu_s:g} s of a core to decode, expected less"
        return f"got an image that ends its decoder (code {code}), expected one that can be decoded"


def _ask(process, data):
    process.stdin.write(_LENGTH.pack(len(data)) + data)
    process.stdin.flush()
    status = _read(process.stdout, 1)
    return status, _read(process.stdout, _LENGTH.unpack(_read(process.stdout, _LENGTH.size))[0])


def _read(file, size):
    data = file.read(size)
    if len(data) < size:
        raise EOFError
    return data


def main():
    """Decode files until the other side closes the pipe or has ended."""
    settings = json.loads(sys.argv[1])
    limits, max_cpu_s = DecodingLimits(**settings["limits"]), settings["max_cpu_s"]
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # Ctrl-C reaches every process of a terminal; the server ends this one by closing the pipe.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        try:
            data = _read(sys.stdin.buffer, _LENGTH.unpack(_read(sys.stdin.buffer, _LENGTH.size))[0])
        except EOFError:
            return
        # The kernel ends the process when the time is up, whatever it is doing: signals wait for a decoder in C.
        signal.setitimer(signal.ITIMER_PROF, max_cpu_s)
        try:
            status, answer = _DECODED, decode(data, limits)[0].tobytes()
        except RefusedInputError as error:
            status, answer = _REFUSED, str(error).encode()
        except MemoryError:
            status, answer = _REFUSED, b"got an image that takes too much memory to decode, expected less"
        signal.setitimer(signal.ITIMER_PROF, 0)
        sys.stdout.buffer.write(status + _LENGTH.pack(len(answer)) + answer)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
