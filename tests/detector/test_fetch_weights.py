"""Fetching a checkpoint from a real HTTP server on this machine that misbehaves on request."""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from ssd_triton.common.errors import WeightsError
from tests.detector.site import CUT_BYTES, OLD, WHOLE, Site, cut, names, quick, script, sha256, status
from tests.interruptible import Interruptible


def redirect(target: str) -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(302)
        request.send_header("Location", target)
        request.send_header("Content-Length", "0")
        request.end_headers()

    return answer


def test_a_download_is_recorded_and_the_next_one_needs_no_network(site: Site, output: Path) -> None:
    weights = quick(site, output)
    assert (weights.path, weights.sha256, weights.recorded_sha256()) == (output, sha256(OLD), sha256(OLD))
    assert output.read_bytes() == OLD
    assert names(output) == WHOLE
    subprocess.run(["sha256sum", "--check", "--strict", "model.pt.sha256"], cwd=output.parent, check=True)
    assert quick(site, output).sha256 == sha256(OLD)
    assert site.num_requests == 1


@pytest.mark.parametrize("code", [429, 503])
def test_a_passing_error_is_retried(site: Site, output: Path, code: int) -> None:
    site.plan.append(status(code))
    assert quick(site, output, retries=1).sha256 == sha256(OLD)
    assert site.num_requests == 2


@pytest.mark.parametrize(("code", "requests"), [(403, 1), (404, 1), (410, 1), (503, 2)])
def test_a_lasting_error_is_one_line_and_leaves_nothing(site: Site, output: Path, code: int, requests: int) -> None:
    site.plan += [status(code)] * 10
    with pytest.raises(WeightsError, match=rf"{site.url}: got HTTP {code} .*, expected the file; \w+") as caught:
        quick(site, output, retries=1)
    assert "\n" not in str(caught.value)
    assert site.num_requests == requests
    assert names(output) == []


def test_a_file_that_is_always_truncated_never_gets_into_place(site: Site, output: Path) -> None:
    site.plan += [cut(site)] * 10
    with pytest.raises(WeightsError, match=rf"{CUT_BYTES} bytes read, .*, expected the whole file; .* run the same"):
        quick(site, output, retries=1)
    assert site.num_requests == 2
    assert names(output) == []


def test_a_stalled_server_is_given_up(site: Site, output: Path) -> None:
    release = threading.Event()

    def stall(request: BaseHTTPRequestHandler) -> None:
        site.answer(request, stop_after=CUT_BYTES)
        release.wait(10)

    site.plan.append(stall)
    started = time.monotonic()
    try:
        with pytest.raises(WeightsError, match="timed out, expected the whole file"):
            quick(site, output, timeout_s=0.2)
    finally:
        release.set()
    assert time.monotonic() - started < 3
    assert names(output) == []


def test_redirects_are_followed_but_not_out_of_https(site: Site, output: Path) -> None:
    site.plan.append(redirect("http://example.org/model.pt"))
    with pytest.raises(WeightsError, match=r"got http:// in http://example\.org/model\.pt, expected https://"):
        quick(site, output)
    site.plan.append(redirect("/elsewhere.pt"))
    assert quick(site, output).sha256 == sha256(OLD)


def test_ctrl_c_leaves_nothing(site: Site, output: Path) -> None:
    release = threading.Event()

    def stall(request: BaseHTTPRequestHandler) -> None:
        site.answer(request, stop_after=CUT_BYTES)
        release.wait(10)

    site.plan.append(stall)
    command = script("--url", site.url, "--output", output)
    with Interruptible(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and not (names(output) and site.num_requests):
            time.sleep(0.02)
        assert names(output)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=10)
        release.set()
    assert process.returncode == 130
    assert "Traceback" not in stderr
    assert names(output) == []
