"""A web site on this machine that misbehaves on request."""

from __future__ import annotations

import hashlib
import io
import sys
import zipfile
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import numpy as np

from ssd_triton.common.files import ROOT
from ssd_triton.detector.weights.fetch import Checkpoint, fetch

CUT_BYTES = 100_000


def zip_file(seed: int) -> bytes:
    """A zip archive of about 400 kB, always the same size: what a checkpoint looks like from outside."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        # By default its time is now, and the names of tests, which hold its digest, would differ between processes.
        entry = zipfile.ZipInfo("model/data.pkl")
        archive.writestr(entry, np.random.default_rng(seed).bytes(400_000))
    return buffer.getvalue()


OLD, NEW = zip_file(0), zip_file(1)


@dataclass
class Site:
    """What the server has, how it behaves, and what it was asked."""

    url: str
    content: bytes = OLD
    etag: str | None = '"old"'
    last_modified: str | None = None
    ranges: bool = True
    checks_if_range: bool = True
    plan: deque[Callable[[BaseHTTPRequestHandler], None]] = field(default_factory=deque)
    """How the next requests are answered, instead of properly."""
    asked: list[dict[str, str]] = field(default_factory=list)

    def replace(self, content: bytes, etag: str) -> None:
        """Put another version of the file online."""
        self.content, self.etag = content, etag

    def answer(self, request: BaseHTTPRequestHandler, *, stop_after: int | None = None) -> None:
        """Answer as the settings say; with ``stop_after``, break off after so many bytes."""
        start, status = 0, 200
        asked_range, condition = request.headers.get("Range"), request.headers.get("If-Range")
        current = condition in (None, self.etag, self.last_modified) or not self.checks_if_range
        if asked_range and self.ranges and current:
            start, status = int(asked_range.removeprefix("bytes=").removesuffix("-")), 206
        body = self.content[start:]
        request.send_response(status)
        for name, value in (("ETag", self.etag), ("Last-Modified", self.last_modified)):
            if value:
                request.send_header(name, value)
        if status == 206:
            request.send_header("Content-Range", f"bytes {start}-{len(self.content) - 1}/{len(self.content)}")
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body[:stop_after])


def cut(site: Site) -> Callable[[BaseHTTPRequestHandler], None]:
    return lambda request: site.answer(request, stop_after=CUT_BYTES)


def status(code: int) -> Callable[[BaseHTTPRequestHandler], None]:
    return lambda request: request.send_error(code)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def quick(site: Site, output: Path, *, retries: int = 2, timeout_s: float = 5, demand: str | None = None) -> Checkpoint:
    return fetch(site.url, output, sha256=demand, timeout_s=timeout_s, retries=retries, first_delay_s=0.01)


def names(output: Path) -> list[str]:
    return sorted(path.name for path in output.parent.iterdir()) if output.parent.exists() else []


WHOLE = ["model.pt", "model.pt.sha256"]


def script(*arguments: str | Path) -> list[str]:
    return [sys.executable, str(ROOT / "tools" / "fetch_weights.py"), *map(str, arguments)]
