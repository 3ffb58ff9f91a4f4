"""A file on its way: ``<output>.part``, and ``<output>.part.json`` with the remote file that its bytes come from."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from io import FileIO
from pathlib import Path

from ssd_triton.common.errors import WeightsError
from ssd_triton.common.files import atomic_output, relative_to_cwd


@dataclass(frozen=True)
class Remote:
    """One version of a remote file."""

    url: str
    size_bytes: int
    etag: str | None
    last_modified: str | None

    @property
    def validator(self) -> str | None:
        """What If-Range may carry: a strong ETag, or else a date."""
        if self.etag is not None and not self.etag.startswith("W/"):
            return self.etag
        return self.last_modified

    def contradicts(self, other: Remote) -> bool:
        """Whether the two cannot be the same version; a header that one of them lacks says nothing."""
        pairs = ((self.etag, other.etag), (self.last_modified, other.last_modified))
        return self.size_bytes != other.size_bytes or any(a and b and a != b for a, b in pairs)


class PartFile:
    """A download under way: ``<output>.part`` and the note beside it."""

    def __init__(self, path: Path, file: FileIO) -> None:
        self.path = path
        self._file = file
        self._note = path.with_name(f"{path.name}.json")

    @property
    def size_bytes(self) -> int:
        """How much has arrived."""
        return os.fstat(self._file.fileno()).st_size

    def source(self) -> Remote | None:
        """Where the bytes come from; None when there are none, or when they cannot be continued."""
        try:
            remote = Remote(**json.loads(self._note.read_bytes()))
            continues = remote.validator is not None and 0 < self.size_bytes <= remote.size_bytes
        except (OSError, ValueError, TypeError):
            return None
        return remote if continues else None

    def begin(self, remote: Remote) -> None:
        """Start afresh, and note where the bytes will come from."""
        self.forget()
        with file_errors(self.path):
            if self.size_bytes:
                self._file.truncate(0)
            with atomic_output(self._note) as temporary:
                temporary.write_text(json.dumps(asdict(remote)), encoding="utf-8")

    def append(self, block: bytes) -> None:
        """Write all of a block: a disk that is nearly full takes a piece, and fails only for the rest."""
        rest = memoryview(block)
        with file_errors(self.path):
            while rest:
                rest = rest[self._file.write(rest) :]

    def forget(self) -> None:
        """Never continue these bytes."""
        with file_errors(self._note):
            self._note.unlink(missing_ok=True)

    def kept(self) -> str:
        """What a later run will continue, in words."""
        remote = self.source()
        return "nothing is kept" if remote is None else f"{self.size_bytes} of {remote.size_bytes} bytes are kept"


@contextmanager
def open_part(output: Path) -> Iterator[PartFile]:
    """Open ``<output>.part`` for one process at a time; at the end it is deleted unless it can be continued.

    Raises:
        WeightsError: It cannot be written, or another process is downloading it.
    """
    path = output.with_name(f"{output.name}.part")
    with file_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("ab", buffering=0)
    with file:
        with file_errors(path):
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                name = relative_to_cwd(path)
                raise WeightsError(f"{name}: another download is writing it; wait for that one") from error
        part = PartFile(path, file)
        try:
            yield part
        finally:
            if part.source() is None:
                part.forget()
                path.unlink(missing_ok=True)


@contextmanager
def file_errors(path: Path) -> Iterator[None]:
    """Turn what the file system refuses into one line.

    Raises:
        WeightsError: The block raised an OSError.
    """
    try:
        yield
    except OSError as error:
        name = relative_to_cwd(path)
        raise WeightsError(f"{name}: {error.strerror}; mend that or give another --output, and run again") from error
