"""A web site on this machine that misbehaves on request, and the fetching of a checkpoint from it."""

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
from ssd_triton.detector.weights.fetch import fetch
from ssd_triton.detector.weights.file import WeightsFile

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
    plan: deque[Callable[[BaseHTTPRequestHandler], None]] = field(default_factory=deque)
    """How the next requests are answered, instead of properly."""
    num_requests: int = 0

    def answer(self, request: BaseHTTPRequestHandler, *, stop_after: int | None = None) -> None:
        """Send the file; with ``stop_after``, break off after so many bytes."""
        request.send_response(200)
        request.send_header("Content-Length", str(len(self.content)))
        request.end_headers()
        request.wfile.write(self.content[:stop_after])


def cut(site: Site) -> Callable[[BaseHTTPRequestHandler], None]:
    return lambda request: site.answer(request, stop_after=CUT_BYTES)


def status(code: int) -> Callable[[BaseHTTPRequestHandler], None]:
    return lambda request: request.send_error(code)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def quick(
    site: Site, output: Path, *, retries: int = 0, timeout_s: float = 5, demand: str | None = None
) -> WeightsFile:
    return fetch(site.url, output, sha256=demand, timeout_s=timeout_s, retries=retries)


def names(output: Path) -> list[str]:
    return sorted(path.name for path in output.parent.iterdir()) if output.parent.exists() else []


WHOLE = ["model.pt", "model.pt.sha256"]


def script(*arguments: str | Path) -> list[str]:
    return [sys.executable, str(ROOT / "tools" / "fetch_weights.py"), *map(str, arguments)]
