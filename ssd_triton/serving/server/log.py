"""Triton's log: appended to, bounded in size whatever the server writes, and used by one server at a time."""

from __future__ import annotations

import collections
import contextlib
import fcntl
import itertools
import os
import re
import shutil
import threading
import time
from pathlib import Path

from ssd_triton.common.errors import ServerError
from ssd_triton.common.files import relative_to_cwd

MAX_BYTES = 8 << 20
"""Size limit of a log: before it would grow beyond, it becomes ``NAME.1``."""
OLD_LOGS = 3
"""``NAME.1`` is the newest of the old logs, ``NAME.3`` the oldest."""
BURST_BYTES = 2 << 20
"""Bytes that are written however fast they come: more than a start and a stop write together."""
BYTES_PER_S = 64 << 10
"""Rate that is written in the long run; lines that come faster are dropped and counted."""
_CRASH_LINE = re.compile(rb"^Signal \((?:4|6|7|8|11)\) received\.$")
"""Line that Triton's handler of SIGILL, SIGABRT, SIGBUS, SIGFPE and SIGSEGV prints before a stack trace."""
_LAST_LINES = 400
_LONGEST_LINE_BYTES = 4096
_PIPE_BYTES = 1 << 20
_READ_BYTES = 1 << 18
_JOIN_S = 5.0


class ServerLog:
    """A log file, and the thread that copies a server's output from a pipe into it.

    The thread never stops reading: a flood of lines or a full disk loses lines, but never blocks the server. The total
    size is at most :data:`MAX_BYTES` × (:data:`OLD_LOGS` + 1).
    """

    def __init__(self, path: Path) -> None:
        """Open a log for appending, and lock it.

        Raises:
            ServerError: Another server writes to it, or it cannot be opened.
        """
        self.path = path
        name = relative_to_cwd(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError as error:
            raise ServerError(f"cannot write the log {name} ({error.strerror}): set another --log") from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._file)
            raise ServerError(f"another server writes to the log {name}: set another --log") from None
        self._crashed_at_s: float | None = None
        self._last_lines: collections.deque[bytes] = collections.deque(maxlen=_LAST_LINES)
        self._thread: threading.Thread | None = None
        self._writing = threading.Lock()
        self._allowance_bytes = float(BURST_BYTES)
        self._allowed_at_s = time.monotonic()
        self._dropped_bytes = 0

    def open_pipe(self) -> int:
        """Return the write end of a new pipe for a server; a thread reads the other end until all writers are gone."""
        reader, writer = os.pipe()
        # A larger pipe, which the kernel may deny, buffers output while this process does not run.
        with contextlib.suppress(OSError):
            fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        self._thread = threading.Thread(target=self._move, args=(reader,), name="server-log", daemon=True)
        self._thread.start()
        return writer

    def note(self, text: str) -> None:
        """Append a line written by this process."""
        self._append(f"ssd-triton {time.strftime('%Y-%m-%d %H:%M:%S')}: {text}\n".encode())

    def seconds_since_crash(self) -> float:
        """Return the time since the server's own handler began to report a crash; 0 without a crash."""
        return 0.0 if self._crashed_at_s is None else time.monotonic() - self._crashed_at_s

    def last_lines(self) -> list[str]:
        """Return the last lines that the server wrote."""
        return [line.decode(errors="replace") for line in list(self._last_lines)]

    def close(self) -> None:
        """Wait until the server's last lines are written, and unlock the log."""
        if self._thread is not None:
            self._thread.join(_JOIN_S)
        with self._writing:
            file, self._file = self._file, -1
            os.close(file)

    def _move(self, reader: int) -> None:
        rest = b""
        with open(reader, "rb", buffering=0) as pipe:
            while block := pipe.read(_READ_BYTES):
                *lines, rest = (rest + block).split(b"\n")
                self._take(lines)
                if len(rest) > _LONGEST_LINE_BYTES:
                    self._take([rest])
                    rest = b""
            if rest:
                self._take([rest])
            self._report_dropped()

    def _take(self, lines: list[bytes]) -> None:
        """Write lines as far as the rate limit allows."""
        self._last_lines.extend(line[:_LONGEST_LINE_BYTES] for line in lines[-_LAST_LINES:])
        now_s = time.monotonic()
        if self._crashed_at_s is None and any(map(_CRASH_LINE.match, lines)):
            self._crashed_at_s = now_s
        grown_bytes = self._allowance_bytes + BYTES_PER_S * (now_s - self._allowed_at_s)
        self._allowance_bytes, self._allowed_at_s = min(grown_bytes, BURST_BYTES), now_s
        text = b"".join(line + b"\n" for line in lines)
        if len(text) > self._allowance_bytes:
            self._dropped_bytes += len(text)
            return
        self._allowance_bytes -= len(text)
        self._report_dropped()
        self._append(text)

    def _report_dropped(self) -> None:
        if self._dropped_bytes:
            dropped, self._dropped_bytes = self._dropped_bytes, 0
            self.note(
                f"dropped {dropped:,} bytes of the server's lines, which came faster than {BYTES_PER_S:,} bytes/s"
            )

    def _append(self, text: bytes) -> None:
        # On a full disk lines are lost, but the server continues.
        with self._writing, contextlib.suppress(OSError):
            if self._file < 0:
                return
            if os.fstat(self._file).st_size + len(text) > MAX_BYTES:
                self._rotate()
            os.write(self._file, text)

    def _rotate(self) -> None:
        """Copy and truncate instead of renaming, so that file and lock stay the same."""
        names = [self.path, *(self.path.with_name(f"{self.path.name}.{age}") for age in range(1, OLD_LOGS + 1))]
        try:
            for younger, older in reversed(list(itertools.pairwise(names[1:]))):
                if younger.is_file():
                    younger.replace(older)
            shutil.copyfile(names[0], names[1])
        finally:
            os.ftruncate(self._file, 0)
