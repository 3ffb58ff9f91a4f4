"""Fetching a checkpoint, against a real HTTP server on this machine that misbehaves on request."""

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
from ssd_triton.detector.weights.fetch import Checkpoint
from ssd_triton.detector.weights.partfile import open_part
from tests.detector.site import CUT_BYTES, NEW, OLD, WHOLE, Site, cut, names, quick, script, sha256, status
from tests.interruptible import Interruptible


def redirect(target: str) -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(302)
        request.send_header("Location", target)
        request.send_header("Content-Length", "0")
        request.end_headers()

    return answer


PART = ["model.pt.part", "model.pt.part.json"]


def test_a_download_is_recorded_and_the_next_one_needs_no_network(site: Site, output: Path) -> None:
    assert quick(site, output) == Checkpoint(output, len(OLD), sha256(OLD), downloaded=True)
    assert output.read_bytes() == OLD
    assert names(output) == WHOLE
    subprocess.run(["sha256sum", "--check", "--strict", "model.pt.sha256"], cwd=output.parent, check=True)
    assert quick(site, output) == Checkpoint(output, len(OLD), sha256(OLD), downloaded=False)
    assert len(site.asked) == 1


def test_a_cut_connection_is_resumed(site: Site, output: Path) -> None:
    site.plan += [cut(site), cut(site)]
    assert quick(site, output).sha256 == sha256(OLD)
    assert [asked.get("Range") for asked in site.asked] == [
        None,
        f"bytes={CUT_BYTES}-",
        f"bytes={2 * CUT_BYTES}-",
    ]
    assert site.asked[1]["If-Range"] == '"old"'


def test_a_later_run_resumes(site: Site, output: Path) -> None:
    site.plan.append(cut(site))
    with pytest.raises(WeightsError, match=rf"got {CUT_BYTES} of {len(OLD)} bytes.* {CUT_BYTES} of .* bytes are kept"):
        quick(site, output, retries=0)
    assert names(output) == PART
    assert quick(site, output, retries=0).sha256 == sha256(OLD)
    assert site.asked[1]["Range"] == f"bytes={CUT_BYTES}-"
    assert names(output) == WHOLE


@pytest.mark.parametrize(
    ("etag", "last_modified", "if_range"),
    [
        ('"strong"', "Fri, 03 Jul 2020 10:00:00 GMT", '"strong"'),
        ('W/"weak"', "Fri, 03 Jul 2020 10:00:00 GMT", "Fri, 03 Jul 2020 10:00:00 GMT"),
        ('W/"weak"', None, None),
        (None, None, None),
    ],
)
def test_only_a_strong_validator_resumes(
    site: Site, output: Path, etag: str | None, last_modified: str | None, if_range: str | None
) -> None:
    site.etag, site.last_modified = etag, last_modified
    site.plan.append(cut(site))
    assert quick(site, output).sha256 == sha256(OLD)
    assert site.asked[1].get("If-Range") == if_range
    assert ("Range" in site.asked[1]) == (if_range is not None)


@pytest.mark.parametrize("checks_if_range", [True, False])
def test_a_changed_file_starts_afresh(site: Site, output: Path, checks_if_range: bool) -> None:
    site.checks_if_range = checks_if_range
    site.plan.append(cut(site))
    with pytest.raises(WeightsError, match="kept"):
        quick(site, output, retries=0)
    site.replace(NEW, '"new"')
    assert len(NEW) == len(OLD)
    assert quick(site, output).sha256 == sha256(NEW)


def test_another_url_starts_afresh(site: Site, output: Path) -> None:
    site.plan.append(cut(site))
    with pytest.raises(WeightsError, match="kept"):
        quick(site, output, retries=0)
    site.url += "?other"
    assert quick(site, output).sha256 == sha256(OLD)
    assert "Range" not in site.asked[1]


def test_a_server_without_ranges_starts_afresh(site: Site, output: Path) -> None:
    site.ranges = False
    site.plan.append(cut(site))
    assert quick(site, output).sha256 == sha256(OLD)
    assert "Range" in site.asked[1]


def test_a_refused_range_starts_afresh(site: Site, output: Path) -> None:
    site.plan += [cut(site), status(416)]
    assert quick(site, output).sha256 == sha256(OLD)
    assert ["Range" in asked for asked in site.asked] == [False, True, False]


def test_a_piece_from_elsewhere_starts_afresh(site: Site, output: Path) -> None:
    def wrong_piece(request: BaseHTTPRequestHandler) -> None:
        piece = OLD[7 : 7 + len(OLD) - CUT_BYTES]
        request.send_response(206)
        request.send_header("ETag", '"old"')
        request.send_header("Content-Range", f"bytes 7-{6 + len(piece)}/{len(OLD)}")
        request.send_header("Content-Length", str(len(piece)))
        request.end_headers()
        request.wfile.write(piece)

    site.plan += [cut(site), wrong_piece]
    assert quick(site, output).sha256 == sha256(OLD)
    assert ["Range" in asked for asked in site.asked] == [False, True, False]


@pytest.mark.parametrize("code", [429, 500, 503])
def test_a_passing_error_is_retried(site: Site, output: Path, code: int) -> None:
    site.plan += [status(code), status(code)]
    assert quick(site, output).sha256 == sha256(OLD)


@pytest.mark.parametrize(("code", "requests"), [(403, 1), (404, 1), (410, 1), (503, 3)])
def test_a_lasting_error_is_one_line_and_leaves_nothing(site: Site, output: Path, code: int, requests: int) -> None:
    site.plan += [status(code)] * 10
    with pytest.raises(WeightsError, match=rf"got HTTP {code} .*, expected the") as caught:
        quick(site, output)
    assert "\n" not in str(caught.value)
    assert len(site.asked) == requests
    assert names(output) == []


def test_a_file_always_cut_short_never_gets_into_place(site: Site, output: Path) -> None:
    site.ranges = False
    site.plan += [cut(site)] * 10
    with pytest.raises(WeightsError, match=f"got {CUT_BYTES} of {len(OLD)} bytes"):
        quick(site, output)
    assert len(site.asked) == 3
    assert names(output) == PART


def test_a_stalled_server_is_given_up(site: Site, output: Path) -> None:
    release = threading.Event()

    def stall(request: BaseHTTPRequestHandler) -> None:
        site.answer(request, stop_after=CUT_BYTES)
        release.wait(10)

    site.plan.append(stall)
    started = time.monotonic()
    try:
        with pytest.raises(WeightsError, match=f"timed out.*{CUT_BYTES} of {len(OLD)} bytes are kept"):
            quick(site, output, retries=0, timeout_s=0.2)
    finally:
        release.set()
    assert time.monotonic() - started < 3


def test_two_downloads_do_not_write_one_file(site: Site, output: Path) -> None:
    with open_part(output), pytest.raises(WeightsError, match="another download"):
        quick(site, output)
    assert quick(site, output).downloaded


def test_an_interrupted_check_downloads_nothing_again(
    site: Site, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_: Path) -> str:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("ssd_triton.detector.weights.fetch.sha256_of", interrupt)
        with pytest.raises(KeyboardInterrupt):
            quick(site, output)
    assert names(output) == PART
    assert quick(site, output).sha256 == sha256(OLD)
    assert len(site.asked) == 1


def test_redirects_are_followed_but_not_out_of_https(site: Site, output: Path) -> None:
    site.plan.append(redirect("http://example.org/model.pt"))
    with pytest.raises(WeightsError, match=r"got http:// in http://example\.org/model\.pt, expected https://"):
        quick(site, output)
    site.plan.append(redirect("/elsewhere.pt"))
    assert quick(site, output).sha256 == sha256(OLD)


def test_ctrl_c_keeps_what_has_arrived(site: Site, output: Path) -> None:
    release = threading.Event()

    def stall(request: BaseHTTPRequestHandler) -> None:
        site.answer(request, stop_after=CUT_BYTES)
        release.wait(10)

    site.plan.append(stall)
    command = script("--url", site.url, "--output", output)
    part = output.with_name("model.pt.part")
    with Interruptible(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline and not (part.exists() and part.stat().st_size == CUT_BYTES):
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=10)
        release.set()
    assert process.returncode == 130
    assert f"{CUT_BYTES} of {len(OLD)} bytes are kept; run the same command again" in stderr
    assert "Traceback" not in stderr
    subprocess.run(command, check=True, capture_output=True)
    assert site.asked[1]["Range"] == f"bytes={CUT_BYTES}-"
    assert output.read_bytes() == OLD
