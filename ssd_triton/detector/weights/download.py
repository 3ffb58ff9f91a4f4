"""Downloading one file over HTTP, resumed where an earlier attempt stopped.

Range and If-Range (RFC 9110, 13.1.5 and 14.2) continue it only while the server still has the version of the file that
the first bytes came from, so that two versions never mix.
"""

from __future__ import annotations

import ipaddress
import logging
import re
import ssl
import time
from collections.abc import Callable
from http.client import HTTPException, HTTPMessage, HTTPResponse, InvalidURL
from typing import IO
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from tqdm import tqdm

from ssd_triton.common.errors import WeightsError
from ssd_triton.detector.weights.partfile import PartFile, Remote

_HEAD_BYTES = 16
"""How much is shown to ``check_head``; enough for the signature of any common format."""

_BLOCK_BYTES = 1 << 18
_LONGEST_DELAY_S = 30.0
_RETRIED_STATUS = frozenset({408, 425, 429})
"""Client errors that pass with time (RFC 9110, 8470 and 6585); every 5xx is retried, too."""

_logger = logging.getLogger(__name__)


class _TransientError(Exception):
    """A failure that another attempt may not meet."""


def download(
    url: str,
    part: PartFile,
    check_head: Callable[[bytes], None],
    *,
    timeout_s: float,
    retries: int,
    first_delay_s: float,
) -> None:
    """Bring a file to its full length.

    Args:
        url: HTTPS; HTTP only on this machine itself.
        part: Continued if it can be.
        check_head: Raises if a file that begins with these bytes is not worth writing.
        timeout_s: Longest wait for a connection, and for each further piece of the file.
        retries: Attempts after the first one.
        first_delay_s: Wait before the first retry; each further one waits twice as long, up to 30 s.

    Raises:
        WeightsError: An HTTP or network error that retries do not mend, or the file cannot be written.
    """
    _check_url(url)
    for attempt in range(retries + 1):
        try:
            _attempt(url, part, check_head, timeout_s)
        except _TransientError as error:
            if attempt == retries:
                raise WeightsError(
                    f"{url}: {error}, expected the whole file (attempt {attempt + 1}, the last one); {part.kept()}: "
                    "check the network and run the same command again"
                ) from error
            delay_s = min(first_delay_s * 2**attempt, _LONGEST_DELAY_S)
            _logger.info("%s; trying again in %.0f s", error, delay_s)
            time.sleep(delay_s)
        else:
            return


def _attempt(url: str, part: PartFile, check_head: Callable[[bytes], None], timeout_s: float) -> None:
    """Ask once for what is missing."""
    source = part.source()
    if source is not None and source.url != url:
        source = None
    if source is not None and source.size_bytes == part.size_bytes:
        return
    headers = {}
    if source is not None:
        headers = {"Range": f"bytes={part.size_bytes}-", "If-Range": str(source.validator)}
    try:
        request = Request(url, headers=headers)  # noqa: S310 - the scheme is checked
        with build_opener(_CheckedRedirects).open(request, timeout=timeout_s) as response:
            _receive(response, url, source, part, check_head)
    except HTTPError as error:
        error.close()
        problem = f"got HTTP {error.code} {error.reason}"
        if error.code == 416:
            part.forget()
        if error.code >= 500 or error.code in _RETRIED_STATUS or error.code == 416:
            raise _TransientError(problem) from error
        raise WeightsError(f"{url}: {problem}, expected the file; give another address with --url") from error
    except InvalidURL as error:
        raise WeightsError(f"{url}: {error}; give another address with --url") from error
    except (OSError, HTTPException) as error:
        reason = error.reason if isinstance(error, URLError) else error
        if isinstance(reason, ssl.SSLCertVerificationError):
            raise WeightsError(f"{url}: {reason.verify_message}; check the clock and SSL_CERT_FILE") from error
        raise _TransientError(" ".join(str(reason).split())) from error


def _receive(
    response: HTTPResponse, url: str, source: Remote | None, part: PartFile, check_head: Callable[[bytes], None]
) -> None:
    """Check an answer's headers, and append its body."""
    size_bytes = response.length
    if response.status == 206 and source is not None:
        found = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", response.headers.get("Content-Range", ""))
        size_bytes = int(found[2]) if found else 0
        if found is None or int(found[1]) != part.size_bytes or source.contradicts(_remote(url, size_bytes, response)):
            part.forget()
            raise _TransientError("got another piece, or another version of the file, than asked for")
    elif response.status != 200:
        raise WeightsError(f"{url}: got HTTP {response.status}, expected 200; give another address with --url")
    elif size_bytes is None:
        # Without it, a file that was cut short looks like a whole one.
        raise WeightsError(f"{url}: got an answer without its length, expected Content-Length; give another --url")
    else:
        head = response.read(_HEAD_BYTES)
        check_head(head)
        part.begin(_remote(url, size_bytes, response))
        part.append(head)
    with tqdm(
        total=size_bytes, initial=part.size_bytes, desc=part.path.stem, unit="B", unit_scale=True, disable=None
    ) as bar:
        while block := response.read1(_BLOCK_BYTES):
            part.append(block)
            bar.update(len(block))
    if part.size_bytes != size_bytes:
        raise _TransientError(f"got {part.size_bytes} of {size_bytes} bytes")


def _remote(url: str, size_bytes: int, response: HTTPResponse) -> Remote:
    return Remote(url, size_bytes, response.headers["ETag"], response.headers["Last-Modified"])


class _CheckedRedirects(HTTPRedirectHandler):
    """Follows redirects, but to no address that ``_check_url`` refuses."""

    def redirect_request(  # noqa: PLR0917 - the signature of the standard library
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> Request | None:
        """Check the address, then follow as usual."""
        _check_url(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _check_url(url: str) -> None:
    """Refuse a URL on whose way others could change what is downloaded."""
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
