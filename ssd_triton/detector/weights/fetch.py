"""Downloading a published checkpoint; the file is put in place only if it is complete and has the right digest.

NVIDIA publishes no digest of its checkpoint. The SHA-256 of the first download is recorded in ``<file>.sha256`` and
required from then on. This module never unpickles.
"""

from __future__ import annotations

import ipaddress
import logging
import sys
import zipfile
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

from ssd_triton.common.errors import WeightsError
from ssd_triton.common.files import atomic_output, relative_to_cwd
from ssd_triton.detector.weights.file import WeightsFile, file_errors

NVIDIA_URL = (
    "https://api.ngc.nvidia.com/v2/models/nvidia/ssd_pyt_ckpt_amp/versions/20.06.0/files/nvidia_ssdpyt_amp_200703.pt"
)
"""The address in ``nvidia_ssd()`` of DeepLearningExamples, ``PyTorch/Detection/SSD/ssd/entrypoints.py``."""

_ZIP_MAGIC = b"PK\x03\x04"
"""First bytes of a ``torch.save`` file since PyTorch 1.6: the first entry of a zip archive (APPNOTE.TXT, 4.3.7)."""
_LEGACY_MAGIC = bytes.fromhex("80028a0a6cfc9c46f9206aa850192e")
"""First bytes of a file from an older PyTorch: ``torch.serialization.MAGIC_NUMBER``, pickled with protocol 2."""
_BLOCK_BYTES = 1 << 18
_RETRIED_STATUS = frozenset({408, 425, 429})
"""Client errors that are retried, since they may be temporary (RFC 9110, 8470 and 6585); every 5xx is retried, too."""

_log = logging.getLogger(__name__)


def fetch(
    url: str, output: Path, *, sha256: str | None = None, timeout_s: float = 30.0, retries: int = 5
) -> WeightsFile:
    """Download a checkpoint, unless it exists already and has the right digest.

    Args:
        url: HTTPS; HTTP is accepted only from the local host.
        output: Where the file is put once it is complete and checked.
        sha256: Required digest, 64 lower-case hexadecimal digits; None requires the recorded one, if any.
        timeout_s: Longest wait for a connection, and for each further piece of the file.
        retries: Attempts after the first one, after pauses of 1 s, 2 s, ... up to 10 s.

    Raises:
        WeightsError: The URL is not HTTPS; the network or the server fails, or the file is truncated; the file is no
            checkpoint or has another digest; or it cannot be written.
    """
    _check_url(url)
    name = relative_to_cwd(output)
    if output.is_dir():
        raise WeightsError(f"{name}: got a folder, expected the name of a file: give another --output")
    weights = WeightsFile(output)
    expected = sha256 or weights.recorded_sha256()
    if output.exists():
        _accept_present(weights, expected)
        return weights
    with file_errors(output), atomic_output(output) as temporary:
        _download(url, temporary, timeout_s, retries)
        downloaded = WeightsFile(temporary)
        if problem := _problem_of(downloaded, expected):
            raise WeightsError(
                f"{url}: {problem}; it was deleted. Give another --url; or, if it is the file you want, leave out "
                f"--sha256, delete {relative_to_cwd(weights.record_path)} and run again"
            )
        _record(weights, downloaded.sha256)
    return weights


def _accept_present(weights: WeightsFile, expected: str | None) -> None:
    """Check a file that exists already; a wrong one is moved to another name."""
    problem = _problem_of(weights, expected)
    if problem:
        rejected = weights.path.with_name(f"{weights.path.name}.rejected")
        with file_errors(weights.path):
            weights.path.replace(rejected)
        raise WeightsError(
            f"{relative_to_cwd(weights.path)}: {problem}; moved to {relative_to_cwd(rejected)}, run again to download"
        )
    _record(weights, weights.sha256)
    _log.info("already there, and its SHA-256 is the expected one: nothing was downloaded")


def _problem_of(weights: WeightsFile, expected: str | None) -> str:
    """Describe what is wrong with a file; an empty string if nothing is."""
    with file_errors(weights.path):
        with weights.path.open("rb") as file:
            head = file.read(len(_LEGACY_MAGIC))
        # The directory of a zip archive is at its end: a truncated archive has none.
        truncated = head.startswith(_ZIP_MAGIC) and not zipfile.is_zipfile(weights.path)
    if truncated:
        return "got a truncated zip archive, expected a whole checkpoint"
    if not head.startswith((_ZIP_MAGIC, _LEGACY_MAGIC)):
        return f"got a file that begins with {head!r}, expected a checkpoint of torch.save, not a login or error page"
    if expected is not None and weights.sha256 != expected:
        return f"got SHA-256 {weights.sha256}, expected {expected}"
    return ""


def _record(weights: WeightsFile, sha256: str) -> None:
    line = f"{sha256}  {weights.path.name}\n".encode()
    record = weights.record_path
    with file_errors(record):
        if record.exists() and record.read_bytes() == line:
            return
        with atomic_output(record) as temporary:
            temporary.write_bytes(line)
    _log.info("recorded the SHA-256 in %s", relative_to_cwd(record))


def _download(url: str, path: Path, timeout_s: float, retries: int) -> None:
    import pooch  # type: ignore[import-untyped]
    from requests.exceptions import HTTPError, RequestException, SSLError

    pooch.get_logger().setLevel(logging.WARNING)  # its own lines name the temporary file
    site = pooch.create(
        path=path.parent, base_url="", registry={path.name: None}, urls={path.name: url}, retry_if_failed=retries
    )
    downloader = pooch.HTTPDownloader(
        progressbar=sys.stderr.isatty(),
        chunk_size=_BLOCK_BYTES,
        timeout=timeout_s,
        hooks={"response": _check_response},
    )
    try:
        site.fetch(path.name, downloader=downloader)
    except HTTPError as error:
        raise WeightsError(f"{url}: got {_status(error.response)}, expected the file; try again later") from error
    except SSLError as error:
        raise WeightsError(f"{url}: {_cause(error)}; check the clock and REQUESTS_CA_BUNDLE") from error
    except RequestException as error:
        raise WeightsError(
            f"{url}: {_cause(error)}, expected the whole file; check the network and run the same command again"
        ) from error


def _check_response(response: Any, **_: object) -> None:
    """Refuse a ``requests.Response`` that a retry would not improve; called before a redirect is followed."""
    if response.is_redirect:
        _check_url(urljoin(response.url, response.headers["Location"]))
    elif 400 <= response.status_code < 500 and response.status_code not in _RETRIED_STATUS:
        raise WeightsError(
            f"{response.url}: got {_status(response)}, expected the file; give another address with --url"
        )
    elif response.ok and "Content-Length" not in response.headers:
        # Without it, a truncated file looks like a whole one.
        raise WeightsError(f"{response.url}: got an answer without Content-Length, expected one; give another --url")


def _status(response: Any) -> str:
    return f"HTTP {response.status_code} {response.reason}"


def _cause(error: BaseException) -> str:
    """The innermost error of a chain, in one line: the outer ones repeat the URL and name Python objects."""
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    return " ".join(str(error).split())


def _check_url(url: str) -> None:
    """Refuse a URL whose download others on the network could change."""
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError:
        host = None
    if not host:
        raise WeightsError(f"got the URL {url!r}, expected https://host/path; give another one with --url")
    if parts.scheme != "https" and not (parts.scheme == "http" and _is_loopback(host)):
        raise WeightsError(f"got {parts.scheme}:// in {url}, expected https://; give another one with --url")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
