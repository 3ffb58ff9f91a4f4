"""The live page as its own process, and the system's Chromium that opens it."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Playwright

from ssd_triton.common.files import ROOT

CLIP = "pan.mp4"
"""The clip that the page of the tests offers."""
FRAMES, FPS = 40, 20
"""Its length and rate."""
CHROMIUM = shutil.which("chromium")
SCREENSHOTS = ROOT / "reports/view"
"""Kept, so that a person can look at what the tests saw."""
_OPTIONS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    # A container may have little of /dev/shm.
    *("--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"),
)
_CAMERA = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")


@contextlib.contextmanager
def running_page(*options: object) -> Iterator[tuple[str, Path]]:
    """The address of a page that runs until the block ends, and its log; it must end in order."""
    with tempfile.TemporaryDirectory(prefix="page-") as folder:
        log = Path(folder) / "page.log"
        command = [
            sys.executable,
            str(ROOT / "clients/live_view.py"),
            "--no-browser",
            "--port",
            "0",
            *map(str, options),
        ]
        with log.open("wb") as output:
            process = subprocess.Popen(command, cwd=folder, stdout=output, stderr=subprocess.STDOUT)
        try:
            deadline_s = time.monotonic() + 60
            while (found := re.search(r"^page: (\S+)", log.read_text(), re.MULTILINE)) is None:
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline_s, log.read_text()
                time.sleep(0.05)
            yield found[1], log
            process.send_signal(signal.SIGINT)
            assert process.wait(30) == 0, log.read_text()
        finally:
            process.kill()
            process.wait()
        assert "Traceback" not in log.read_text(), log.read_text()


@contextlib.contextmanager
def chromium(playwright: Playwright, *, has_camera: bool = True) -> Iterator[Browser]:
    """A browser; the test skips without one."""
    if CHROMIUM is None:
        pytest.skip("chromium is not installed")
    options = [*_OPTIONS, *(_CAMERA if has_camera else ())]
    browser = playwright.chromium.launch(executable_path=CHROMIUM, args=options)
    try:
        yield browser
    finally:
        browser.close()


@dataclass
class Visit:
    """A page in the browser, and what it did beside what is seen.

    Attributes:
        page: The page.
        problems: Errors of its console.
        requests: Addresses that it asked for.
    """

    page: Page
    address: str
    problems: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def turn_to(self, name: str) -> None:
        self.page.click(f'nav a[href="#{name}"]')

    def text(self, selector: str) -> str:
        return self.page.inner_text(selector)

    def has_text(self, selector: str, text: str, timeout_s: float = 20) -> None:
        """Wait until an element holds a text."""
        self.page.locator(selector).filter(has_text=text).first.wait_for(timeout=timeout_s * 1e3, state="attached")

    def keep(self, name: str) -> None:
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=True)

    def check(self, *expected: str) -> None:
        """No error but the expected ones, and no request to elsewhere."""
        unexpected = [one for one in self.problems if not any(text in one for text in expected)]
        assert unexpected == [], unexpected
        own = urlsplit(self.address).netloc
        assert [url for url in self.requests if urlsplit(url).scheme != "blob" and urlsplit(url).netloc != own] == []


@contextlib.contextmanager
def visit(browser: Browser, address: str, *, width_px: int = 1280, dark: bool = False) -> Iterator[Visit]:
    """Open a page in a window of its own."""
    context: BrowserContext = browser.new_context(
        viewport={"width": width_px, "height": 900}, color_scheme="dark" if dark else "light", permissions=["camera"]
    )
    try:
        seen = Visit(context.new_page(), address)
        seen.page.on("console", lambda message: seen.problems.append(message.text) if message.type == "error" else None)
        seen.page.on("pageerror", lambda error: seen.problems.append(str(error)))
        seen.page.on("request", lambda request: seen.requests.append(request.url))
        seen.page.goto(address)
        yield seen
    finally:
        context.close()


@dataclass(frozen=True)
class Running:
    """A page that runs.

    Attributes:
        address: Of the page.
        log: What it printed.
    """

    address: str
    log: Path


def request(
    address: str, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
) -> tuple[int, Any]:
    """Status and JSON of an answer."""
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=30)
    try:
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()
