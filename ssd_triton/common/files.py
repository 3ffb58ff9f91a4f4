"""Files that are either whole or absent."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ssd_triton import __version__
from ssd_triton.common.errors import UserError

_PACKAGE = Path(__file__).resolve().parents[1]
_IN_WHEEL = _PACKAGE / "_data"


def _user_folder() -> Path:
    """A folder of this version below the user's data folder, as the XDG Base Directory Specification places it."""
    base = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    return base / "ssd-triton" / __version__


SHIPPED = _IN_WHEEL if _IN_WHEEL.is_dir() else _PACKAGE.parent
"""The folders that the project ships (``model_repository/``, ``backends/``, ...), only to be read: the top of a clone,
or the copy that a wheel carries."""
ROOT = _user_folder() if _IN_WHEEL.is_dir() else _PACKAGE.parent
"""The same folders where commands may write to them: the top of a clone; for a package installed from a wheel, a folder
of the user's, once :func:`fill_root` has run."""
PART = ".*.part*"
"""Matches what :func:`atomic_output` writes to until it is whole; only a killed process leaves it behind."""
_CREDENTIALS = re.compile(r"(?<=://)[^/@]*@")


def fill_root() -> None:
    """Copy the shipped folders to :data:`ROOT` unless they are there; does nothing in a clone.

    Raises:
        UserError: The folder cannot be written.
    """
    if ROOT == SHIPPED or ROOT.is_dir():
        return
    try:
        ROOT.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".part-", dir=ROOT.parent) as folder:
            copy = Path(folder) / ROOT.name
            # File by file: copytree keeps the modes, and what is shipped may be read-only.
            for source in (path for path in SHIPPED.rglob("*") if path.is_file()):
                target = copy / source.relative_to(SHIPPED)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, target)
            copy.rename(ROOT)
    except OSError as error:
        if not ROOT.is_dir():  # otherwise another process has just filled it
            raise UserError(
                f"cannot write {ROOT} ({error.strerror}); set XDG_DATA_HOME to a folder for this user's data"
            ) from error


@contextmanager
def atomic_output(path: Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``, and move it there once the block has succeeded.

    The suffix is kept, since many writers choose a format by it. After an exception or Ctrl-C the old file, if
    there was one, is still in place and nothing else is left behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def relative_to_cwd(path: Path) -> str:
    """The shorter of the absolute path and the one relative to the current folder, printable, for messages."""
    try:
        return printable_name(str(path.resolve().relative_to(Path.cwd())))
    except ValueError:
        return printable_name(str(path))


def printable_address(address: str) -> str:
    """An address without user name and password, printable."""
    return _CREDENTIALS.sub("", printable_name(address))


def printable_name(name: str) -> str:
    r"""A file name with what a terminal cannot show, or would obey, as ``\xNN``: bytes that are not UTF-8, escapes."""
    return "".join(
        letter if letter.isprintable() else "".join(f"\\x{byte:02x}" for byte in os.fsencode(letter)) for letter in name
    )
