"""Fetching a checkpoint, against a real HTTP server on this machine that misbehaves on request."""

from __future__ import annotations

import hashlib
import io
import signal
import socket
import subprocess
import sys
import threading
import time
import zipfile
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch

from ssd_triton.common.errors import WeightsError
from ssd_triton.common.files import ROOT
from ssd_triton.detector.weights.fetch import Checkpoint, fetch, recorded_sha256, verify_recorded
from ssd_triton.detector.weights.partfile import open_part

CUT_BYTES = 100_000
HTML = b"<!DOCTYPE html><title>Please log in</title>" + b" " * 500


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


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv("no_proxy", "*")

    class Handler(BaseHTTPRequestHandler):
        """Follows the plan."""

        site: ClassVar[Site]

        def do_GET(self) -> None:
            """Answer one request."""
            self.site.asked.append(dict(self.headers))
            (self.site.plan.popleft() if self.site.plan else self.site.answer)(self)

        def log_message(self, *_: object) -> None:
            """Keep the test's output clean."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Handler.site = Site(url=f"http://127.0.0.1:{server.server_port}/model.pt")
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        yield Handler.site
        server.shutdown()


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "downloads" / "model.pt"


def cut(site: Site) -> Callable[[BaseHTTPRequestHandler], None]:
    return lambda request: site.answer(request, stop_after=CUT_BYTES)


def status(code: int) -> Callable[[BaseHTTPRequestHandler], None]:
    return lambda request: request.send_error(code)


def html(request: BaseHTTPRequestHandler) -> None:
    request.send_response(200)
    request.send_header("Content-Length", str(len(HTML)))
    request.end_headers()
    request.wfile.write(HTML)


def redirect(target: str) -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(302)
        request.send_header("Location", target)
        request.send_header("Content-Length", "0")
        request.end_headers()

    return answer


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def quick(site: Site, output: Path, *, retries: int = 2, timeout_s: float = 5, demand: str | None = None) -> Checkpoint:
    return fetch(site.url, output, sha256=demand, timeout_s=timeout_s, retries=retries, first_delay_s=0.01)


def names(output: Path) -> list[str]:
    return sorted(path.name for path in output.parent.iterdir()) if output.parent.exists() else []


WHOLE = ["model.pt", "model.pt.sha256"]
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


def test_an_answer_without_a_length_is_refused(site: Site, output: Path) -> None:
    def endless(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.end_headers()
        request.wfile.write(OLD[:CUT_BYTES])

    site.plan.append(endless)
    with pytest.raises(WeightsError, match="expected Content-Length"):
        quick(site, output)
    assert names(output) == []


def test_a_web_page_is_no_checkpoint(site: Site, output: Path) -> None:
    site.plan.append(html)
    with pytest.raises(WeightsError, match=r"begins with b'<!DOCTYPE.*expected a checkpoint"):
        quick(site, output)
    assert names(output) == []


def test_a_web_page_does_not_cost_what_has_arrived(site: Site, output: Path) -> None:
    site.plan += [cut(site), html]
    with pytest.raises(WeightsError, match="begins with b'<!DOCTYPE"):
        quick(site, output)
    assert quick(site, output).sha256 == sha256(OLD)
    assert site.asked[2]["Range"] == f"bytes={CUT_BYTES}-"


def test_a_zip_archive_without_its_end_is_no_checkpoint(site: Site, output: Path) -> None:
    site.content = OLD[:-CUT_BYTES]
    with pytest.raises(WeightsError, match="cut short"):
        quick(site, output)
    assert names(output) == []


@pytest.mark.parametrize("as_zip", [True, False])
def test_what_torch_saves_is_a_checkpoint(site: Site, output: Path, as_zip: bool) -> None:
    buffer = io.BytesIO()
    torch.save({"model": {"conv.0.bias": torch.ones(3)}}, buffer, _use_new_zipfile_serialization=as_zip)
    site.content = buffer.getvalue()
    assert quick(site, output).size_bytes == len(site.content)


def test_a_demanded_digest(site: Site, output: Path) -> None:
    with pytest.raises(WeightsError, match=f"got SHA-256 {sha256(OLD)}, expected {sha256(NEW)}"):
        quick(site, output, demand=sha256(NEW))
    assert names(output) == []
    assert quick(site, output, demand=sha256(OLD)).downloaded


def test_a_recorded_digest_is_demanded_of_the_next_download(site: Site, output: Path) -> None:
    quick(site, output)
    output.unlink()
    site.replace(NEW, '"new"')
    with pytest.raises(WeightsError, match=f"got SHA-256 {sha256(NEW)}, expected {sha256(OLD)}.*model.pt.sha256"):
        quick(site, output)
    assert names(output) == ["model.pt.sha256"]
    assert quick(site, output, demand=sha256(NEW)).downloaded
    assert recorded_sha256(output) == sha256(NEW)


def test_a_wrong_file_in_place_is_moved_away(site: Site, output: Path) -> None:
    quick(site, output)
    output.write_bytes(NEW)
    with pytest.raises(WeightsError, match=f"got SHA-256 {sha256(NEW)}, expected {sha256(OLD)}; moved to"):
        quick(site, output)
    assert names(output) == ["model.pt.rejected", "model.pt.sha256"]
    assert output.with_name("model.pt.rejected").read_bytes() == NEW
    assert quick(site, output).downloaded


def test_a_file_put_in_place_by_hand_is_recorded(site: Site, output: Path) -> None:
    output.parent.mkdir()
    output.write_bytes(OLD)
    assert not quick(site, output).downloaded
    assert recorded_sha256(output) == sha256(OLD)
    assert site.asked == []


@pytest.mark.parametrize("text", ["", "deadbeef  model.pt\n", f"{sha256(OLD)}  other.pt\n", f"{sha256(OLD)}\n", "é\0"])
def test_an_unreadable_record_is_refused(site: Site, output: Path, text: str) -> None:
    quick(site, output)
    output.with_name("model.pt.sha256").write_text(text, encoding="latin-1")
    with pytest.raises(WeightsError, match=r"model.pt.sha256: got .*expected a SHA-256"):
        quick(site, output)
    assert names(output) == WHOLE


def test_use_checks_the_record(site: Site, output: Path) -> None:
    quick(site, output)
    verify_recorded(output)
    output.write_bytes(NEW)
    with pytest.raises(WeightsError, match=f"got SHA-256 {sha256(NEW)}, expected {sha256(OLD)}; run 'python tools"):
        verify_recorded(output)
    output.with_name("model.pt.sha256").unlink()
    verify_recorded(output)


def test_a_full_disk_is_one_line(site: Site, output: Path) -> None:
    output.parent.mkdir()
    output.with_name("model.pt.part").symlink_to("/dev/full")
    with pytest.raises(WeightsError, match=r"model.pt.part: No space left on device; .*run again"):
        quick(site, output)
    assert len(site.asked) == 1
    assert names(output) == []


def test_a_folder_is_no_file_name(site: Site, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="got a folder"):
        quick(site, tmp_path)
    assert tmp_path.is_dir()


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


@pytest.mark.parametrize(
    "url",
    ["http://example.org/model.pt", "ftp://127.0.0.1/model.pt", "file:///etc/hostname", "model.pt", "https://[/x", ""],
)
def test_other_urls_than_https_are_refused(output: Path, url: str) -> None:
    with pytest.raises(WeightsError, match=r"expected https://.*--url"):
        fetch(url, output, retries=0)
    assert names(output) == []


def test_redirects_are_followed_but_not_out_of_https(site: Site, output: Path) -> None:
    site.plan.append(redirect("http://example.org/model.pt"))
    with pytest.raises(WeightsError, match=r"got http:// in http://example\.org/model\.pt, expected https://"):
        quick(site, output)
    site.plan.append(redirect("/elsewhere.pt"))
    assert quick(site, output).sha256 == sha256(OLD)


def script(*arguments: str | Path) -> list[str]:
    return [sys.executable, str(ROOT / "tools" / "fetch_weights.py"), *map(str, arguments)]


def test_the_script_prints_what_config_yml_needs(site: Site, output: Path) -> None:
    config = output.parents[1] / "config.yml"
    config.write_bytes((ROOT / "config.yml").read_bytes())
    command = script("--config", config, "--url", site.url, "--output", output)
    first = subprocess.run(command, capture_output=True, text=True, check=True)
    assert first.stdout.splitlines() == [
        f"file        {output}",
        f"size        {len(OLD)} bytes (0.4 MB)",
        f"SHA-256     {sha256(OLD)}",
        "config.yml  weights_path: downloads/model.pt",
    ]
    second = subprocess.run(command, capture_output=True, text=True, check=True)
    assert second.stdout == first.stdout
    assert "nothing was downloaded" in second.stderr
    assert len(site.asked) == 1


def test_the_script_fails_in_one_line(output: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = script("--url", f"http://127.0.0.1:{port}/model.pt", "--output", output, "--retries", "0")
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith(f"fetch_weights.py: error: http://127.0.0.1:{port}/model.pt: [Errno 111]")
    assert "run the same command again" in result.stderr


@pytest.mark.parametrize("arguments", [("--sha256", "abc"), ("--timeout-s", "nan"), ("--retries", "-1")])
def test_wrong_usage_exits_with_2(output: Path, arguments: tuple[str, str]) -> None:
    result = subprocess.run(script("--output", output, *arguments), capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert f"argument {arguments[0]}" in result.stderr


def test_ctrl_c_keeps_what_has_arrived(site: Site, output: Path) -> None:
    release = threading.Event()

    def stall(request: BaseHTTPRequestHandler) -> None:
        site.answer(request, stop_after=CUT_BYTES)
        release.wait(10)

    site.plan.append(stall)
    command = script("--url", site.url, "--output", output)
    part = output.with_name("model.pt.part")
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
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
