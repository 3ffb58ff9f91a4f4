"""A published checkpoint: downloaded, checked, and in place only when it is whole and the right one.

NVIDIA publishes no digest of its checkpoint: the SHA-256 of the first download is recorded in ``<file>.sha256``, in
the format of ``sha256sum -c``, and demanded ever after. Nothing here unpickles.
"""

from __future__ import annotations

import logging
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path

from ssd_triton.common.errors import WeightsError
from ssd_triton.common.files import atomic_output, relative_to_cwd, sha256_of
from ssd_triton.detector.weights.download import download
from ssd_triton.detector.weights.partfile import file_errors, open_part

NVIDIA_URL = (
    "https://api.ngc.nvidia.com/v2/models/nvidia/ssd_pyt_ckpt_amp/versions/20.06.0/files/nvidia_ssdpyt_amp_200703.pt"
)
"""The address in ``nvidia_ssd()`` of DeepLearningExamples, ``PyTorch/Detection/SSD/ssd/entrypoints.py``."""

_ZIP_MAGIC = b"PK\x03\x04"
"""How files of ``torch.save`` begin since PyTorch 1.6: the first entry of a zip archive (APPNOTE.TXT, 4.3.7)."""

_LEGACY_MAGIC = bytes.fromhex("80028a0a6cfc9c46f9206aa850192e")
"""How older ones begin: ``torch.serialization.MAGIC_NUMBER``, pickled with protocol 2."""

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """A checked file; ``downloaded`` is False when it was there already."""

    path: Path
    size_bytes: int
    sha256: str
    downloaded: bool


def fetch(
    url: str,
    output: Path,
    *,
    sha256: str | None = None,
    timeout_s: float = 30.0,
    retries: int = 5,
    first_delay_s: float = 1.0,
) -> Checkpoint:
    """Download a checkpoint to ``output``, unless it is there already and is the right one.

    Args:
        url: HTTPS; HTTP only on this machine itself.
        output: Where the file is put once it is whole and checked.
        sha256: The digest to demand, 64 lower-case hexadecimal digits; None demands the recorded one, if any.
        timeout_s: Longest wait for a connection, and for each further piece of the file.
        retries: Attempts after the first one; each continues where the last one stopped.
        first_delay_s: Wait before the first retry; each further one waits twice as long, up to 30 s.

    Raises:
        WeightsError: The URL is not HTTPS; there is no network, an HTTP error, a file cut short, or something else
            than a checkpoint; the digest is another; or the file cannot be written.
    """
    if output.is_dir():
        raise WeightsError(
            f"{relative_to_cwd(output)}: got a folder, expected the name of a file: give another --output"
        )
    expected = sha256 or recorded_sha256(output)
    if output.exists():
        return _accept_present(output, expected)
    with open_part(output) as part:
        try:
            download(url, part, _check_head, timeout_s=timeout_s, retries=retries, first_delay_s=first_delay_s)
        except KeyboardInterrupt:
            _logger.info("stopped: %s; run the same command again", part.kept())
            raise
        size_bytes = part.size_bytes
        digest, problem = _inspect(part.path, expected)
        if problem:
            part.forget()
            raise WeightsError(
                f"{url}: {problem}; it was deleted. Give another --url; or, if it is the file you want, leave out "
                f"--sha256, delete {relative_to_cwd(_record_of(output))} and run again"
            )
        _record(output, digest)
        with file_errors(output):
            part.path.replace(output)
        part.forget()
    return Checkpoint(output, size_bytes, digest, downloaded=True)


def verify_recorded(path: Path) -> None:
    """Check a file that is about to be used against its recorded digest; without a record it passes.

    Raises:
        WeightsError: The digest is another, or the file or its record cannot be read.
    """
    expected = recorded_sha256(path)
    problem = "" if expected is None else _inspect(path, expected)[1]
    if problem:
        name = relative_to_cwd(path)
        raise WeightsError(f"{name}: {problem}; run 'python tools/fetch_weights.py --output {name}'")


def recorded_sha256(path: Path) -> str | None:
    """The digest recorded for a file, as 64 lower-case hexadecimal digits; None when there is no record.

    Raises:
        WeightsError: The record cannot be read, or is not one line of ``sha256sum`` about this file.
    """
    record = _record_of(path)
    with file_errors(record):
        if not record.exists():
            return None
        text = record.read_bytes().decode(errors="replace").strip()
    found = re.fullmatch(r"([0-9a-fA-F]{64}) [ *](.+)", text)
    if found is None or found[2] != path.name:
        raise WeightsError(
            f"{relative_to_cwd(record)}: got {text[:80]!r}, expected a SHA-256, two spaces and {path.name!r}; delete "
            "it to record the digest anew"
        )
    return found[1].lower()


def _record_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _record(path: Path, digest: str) -> None:
    record = _record_of(path)
    line = f"{digest}  {path.name}\n"
    with file_errors(record):
        if record.exists() and record.read_bytes() == line.encode():
            return
        with atomic_output(record) as temporary:
            temporary.write_text(line, encoding="utf-8")
    _logger.info("recorded the SHA-256 in %s", relative_to_cwd(record))


def _accept_present(output: Path, expected: str | None) -> Checkpoint:
    """Check a file that is there already; move it out of the way, but keep it, when it is not the right one."""
    digest, problem = _inspect(output, expected)
    if problem:
        rejected = output.with_name(f"{output.name}.rejected")
        with file_errors(output):
            output.replace(rejected)
        raise WeightsError(
            f"{relative_to_cwd(output)}: {problem}; moved to {relative_to_cwd(rejected)}, run again to download"
        )
    _record(output, digest)
    return Checkpoint(output, output.stat().st_size, digest, downloaded=False)


def _inspect(path: Path, expected: str | None) -> tuple[str, str]:
    """A file's digest, and what is wrong with it: an empty string is nothing."""
    with file_errors(path):
        digest = sha256_of(path)
        with path.open("rb") as file:
            head = file.read(len(_LEGACY_MAGIC))
        # The directory of a zip archive is its end: one that was cut short is none.
        if head.startswith(_ZIP_MAGIC) and not zipfile.is_zipfile(path):
            return digest, "got a zip archive that was cut short, expected a whole checkpoint"
    if not _is_checkpoint(head):
        return digest, f"got a file that begins with {head!r}, expected a checkpoint of torch.save"
    if expected is not None and digest != expected:
        return digest, f"got SHA-256 {digest}, expected {expected}"
    return digest, ""


def _check_head(head: bytes) -> None:
    if not _is_checkpoint(head):
        raise WeightsError(
            f"got a file that begins with {head!r}, expected a checkpoint of torch.save: is that a login or error "
            "page? Open the URL in a browser, or give another one with --url"
        )


def _is_checkpoint(head: bytes) -> bool:
    return head.startswith((_ZIP_MAGIC, _LEGACY_MAGIC))
