"""Keeps the results of a long run as they arrive: a killed run resumes where it stopped, without gaps or duplicates.

A journal is a file of JSON lines that is only appended to: a header with a fingerprint of everything that the results
depend on, then a record for each result. An incomplete last line, left by a killed process, is dropped.

    with open_journal(path, {"model": "ssd"}) as journal:
        done = {record["image_id"] for record in journal.records()}
        for image_id in todo - done:
            journal.append({"image_id": image_id, ...})
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from ssd_triton.common.errors import UserError
from ssd_triton.common.files import relative_to_cwd

Record = dict[str, Any]
_FORMAT = 1
_SHOWN_DIFFERENCES = 4
_LONGEST_VALUE = 48
"""Longer values are cut in the middle in messages, characters."""
_BLOCK_BYTES = 1 << 16


class JournalError(UserError):
    """A journal belongs to another run, is damaged or in use, or cannot be written."""


class Journal:
    """An open journal, locked against other processes; use it as a context manager.

    Attributes:
        path: The file.
    """

    def __init__(self, path: Path, file: BinaryIO) -> None:
        """Take over an open file; use :func:`open_journal` to create a journal."""
        self.path = path
        self._file = file

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()

    def records(self) -> Iterator[Record]:
        """Yield the records, one at a time, in the order in which they were appended.

        Raises:
            JournalError: A line is damaged.
        """
        return read_records(self.path)

    def append(self, record: Mapping[str, object]) -> None:
        """Append a record; once this returns, the record survives a kill of the process.

        Raises:
            JournalError: It cannot be written; the records before it are kept.
        """
        line = json.dumps(record, separators=(",", ":")).encode() + b"\n"
        end = self._file.seek(0, os.SEEK_END)
        try:
            while line:
                line = line[self._file.write(line) :]
        except OSError as error:
            self._file.truncate(end)
            raise JournalError(
                f"cannot write {relative_to_cwd(self.path)} ({error.strerror}): all results before are kept; make room "
                "and run the same command again to resume"
            ) from error


def open_journal(path: Path, fingerprint: Mapping[str, object], *, restart: bool = False) -> Journal:
    """Open a journal to resume it, or start one.

    Args:
        path: The file.
        fingerprint: JSON values that the results depend on.
        restart: Whether to drop the content of the file, whatever it is.

    Raises:
        JournalError: Its results have another fingerprint, it is not a journal, another process has it open, or it
            cannot be written.
    """
    name = relative_to_cwd(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+b", buffering=0)
    except OSError as error:
        raise JournalError(f"cannot write {name} ({error.strerror}); give another folder with --output") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _drop_torn_line(file, restart=restart)
        journal = Journal(path, file)
        if file.tell():
            _check_fingerprint(read_fingerprint(path), json.loads(json.dumps(fingerprint)), name)
        else:
            journal.append({"format": _FORMAT, "fingerprint": fingerprint})
    except BlockingIOError:
        file.close()
        raise JournalError(
            f"another process is writing to {name}: wait, or give another folder with --output"
        ) from None
    except BaseException:
        file.close()
        raise
    return journal


def read_fingerprint(path: Path) -> Record:
    """Return the fingerprint of a journal that need not be open.

    Raises:
        JournalError: The file is not a journal of this version.
    """
    try:
        with path.open("rb") as file:
            header = json.loads(file.readline())
        if header["format"] == _FORMAT:
            fingerprint: Record = header["fingerprint"]
            return fingerprint
    except OSError as error:
        raise JournalError(f"cannot read {relative_to_cwd(path)} ({error.strerror})") from error
    except (ValueError, KeyError, TypeError):
        pass
    raise JournalError(f"{relative_to_cwd(path)} holds no results that this version can resume; --restart drops them")


def read_records(path: Path) -> Iterator[Record]:
    """Yield the records of a journal that need not be open; an incomplete last line is skipped.

    Raises:
        JournalError: The file is not a journal of this version, or a line is damaged.
    """
    read_fingerprint(path)
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if number == 1 or not line.endswith(b"\n"):
                continue
            try:
                record = json.loads(line)
            except ValueError as error:
                raise damaged(path, number, error) from None
            if not isinstance(record, dict):
                raise damaged(path, number, TypeError(f"got {type(record).__name__}, expected an object"))
            yield record


def damaged(path: Path, number: int, error: Exception) -> JournalError:
    """Return the error for a line whose record cannot be used."""
    return JournalError(f"{relative_to_cwd(path)}:{number} is damaged ({error!r}); --restart drops all results")


def differences(before: object, now: object, place: str = "") -> list[str]:
    """List the differences between two fingerprints, as ``place: was ..., is ...``."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        keys = [*before, *(key for key in now if key not in before)]
        return [
            line
            for key in keys
            for line in differences(before.get(key), now.get(key), f"{place}.{key}" if place else str(key))
        ]
    return [] if before == now else [f"{place} was {_short(before)}, is {_short(now)}"]


def _drop_torn_line(file: BinaryIO, *, restart: bool) -> None:
    """Cut off an incomplete last line, and leave the file position at the end."""
    end = 0 if restart else file.seek(0, os.SEEK_END)
    while end:
        start = max(0, end - _BLOCK_BYTES)
        file.seek(start)
        line_break = file.read(end - start).rfind(b"\n")
        if line_break >= 0:
            end = start + line_break + 1
            break
        end = start
    file.truncate(end)
    file.seek(end)


def _check_fingerprint(before: Record, now: Record, name: str) -> None:
    changed = differences(before, now)
    if changed:
        rest = f" and {len(changed) - _SHOWN_DIFFERENCES} more" if len(changed) > _SHOWN_DIFFERENCES else ""
        raise JournalError(
            f"{name} holds results of something else: {'; '.join(changed[:_SHOWN_DIFFERENCES])}{rest}. --restart drops "
            "them, --output keeps them and writes elsewhere"
        )


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[:8]}…{text[-8:]}"
