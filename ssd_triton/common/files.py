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
    """Return this version's folder below the user's data folder, as in the XDG Base Directory Specification."""
    base = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    return base / "ssd-triton" / __version__


SHIPPED = _IN_WHEEL if _IN_WHEEL.is_dir() else _PACKAGE.parent
"""Parent of the folders that the project ships (``model_repository/``, ``backends/``, ...), read-only: the top of a
clone, or the copy inside a wheel."""
ROOT = _user_folder() if _IN_WHEEL.is_dir() else _PACKAGE.parent
"""Parent of the same folders where commands may write: the top of a clone; for a package installed from a wheel, a
folder in the user's data folder, which :func:`fill_root` fills."""
PART = ".*.part*"
"""Matches the temporary files of :func:`atomic_output`; only a killed process leaves one behind."""
_CREDENTIALS = re.compile(r"(?<=://)[^/@]*@")


def fill_root() -> None:
    """Copy the shipped folders to :data:`ROOT` unless they are there already; does nothing in a clone.

    Raises:
        UserError: The folder cannot be written.
    """
    if ROOT == SHIPPED or ROOT.is_dir():
        return
    try:
        ROOT.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".part-", dir=ROOT.parent) as folder:
            copy = Path(folder) / ROOT.name
            # File by file: copytree would keep the modes, and shipped files may be read-only.
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
def atomic_output(path: Path, *, durable: bool = False) -> Iterator[Path]:
    """Give a temporary path beside ``path``, and move it there once the block has succeeded.

    The suffix is kept, since many writers choose a format by it. After an exception or Ctrl-C the old file, if
    there was one, is still in place and nothing else is left behind.

    Args:
        path: The final path of the file.
        durable: Whether the file is on the disk when the block ends, so that it survives a loss of power.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        yield temporary
        if durable:
            _sync(temporary)
        temporary.replace(path)
        if durable:
            _sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    """Flush the content of a file, or the entries of a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def relative_to_cwd(path: Path) -> str:
    """Return a printable path for messages: absolute or relative to the current folder, whichever is shorter."""
    try:
        return printable_name(str(path.resolve().relative_to(Path.cwd())))
    except ValueError:
        return printable_name(str(path))


def printable_address(address: str) -> str:
    """Return an address in printable form, without user name and password."""
    return _CREDENTIALS.sub("", printable_name(address))


def printable_name(name: str) -> str:
    r"""Return a file name safe for a terminal: bytes that are not UTF-8 and control characters become ``\xNN``."""
    return "".join(
        letter if letter.isprintable() else "".join(f"\\x{byte:02x}" for byte in os.fsencode(letter)) for letter in name
    )
