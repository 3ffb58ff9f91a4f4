"""What a fetched checkpoint must be: whole, no web page, of the demanded digest; and the script's errors."""

from __future__ import annotations

import io
import socket
import subprocess
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
import torch

from ssd_triton.common.errors import WeightsError
from ssd_triton.common.files import ROOT
from ssd_triton.detector.weights.fetch import fetch
from ssd_triton.detector.weights.file import WeightsFile
from tests.detector.site import CUT_BYTES, NEW, OLD, WHOLE, Site, names, quick, script, sha256

HTML = b"<!DOCTYPE html><title>Please log in</title>" + b" " * 500


def html(request: BaseHTTPRequestHandler) -> None:
    request.send_response(200)
    request.send_header("Content-Length", str(len(HTML)))
    request.end_headers()
    request.wfile.write(HTML)


def test_an_answer_without_a_length_is_refused(site: Site, output: Path) -> None:
    def endless(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.end_headers()
        request.wfile.write(OLD[:CUT_BYTES])

    site.plan.append(endless)
    with pytest.raises(WeightsError, match="without Content-Length"):
        quick(site, output)
    assert names(output) == []


def test_a_web_page_is_no_checkpoint(site: Site, output: Path) -> None:
    site.plan.append(html)
    with pytest.raises(WeightsError, match=r"begins with b'<!DOCTYPE.*expected a checkpoint"):
        quick(site, output)
    assert names(output) == []


def test_a_zip_archive_without_its_end_is_no_checkpoint(site: Site, output: Path) -> None:
    site.content = OLD[:-CUT_BYTES]
    with pytest.raises(WeightsError, match="truncated zip archive"):
        quick(site, output)
    assert names(output) == []


@pytest.mark.parametrize("as_zip", [True, False])
def test_what_torch_saves_is_a_checkpoint(site: Site, output: Path, as_zip: bool) -> None:
    buffer = io.BytesIO()
    torch.save({"model": {"conv.0.bias": torch.ones(3)}}, buffer, _use_new_zipfile_serialization=as_zip)
    site.content = buffer.getvalue()
    assert quick(site, output).path.read_bytes() == site.content


def test_a_demanded_digest(site: Site, output: Path) -> None:
    with pytest.raises(WeightsError, match=f"got SHA-256 {sha256(OLD)}, expected {sha256(NEW)}"):
        quick(site, output, demand=sha256(NEW))
    assert names(output) == []
    assert quick(site, output, demand=sha256(OLD)).sha256 == sha256(OLD)
    assert output.read_bytes() == OLD


def test_a_recorded_digest_is_demanded_of_the_next_download(site: Site, output: Path) -> None:
    quick(site, output)
    output.unlink()
    site.content = NEW
    with pytest.raises(WeightsError, match=f"got SHA-256 {sha256(NEW)}, expected {sha256(OLD)}.*model.pt.sha256"):
        quick(site, output)
    assert names(output) == ["model.pt.sha256"]
    assert quick(site, output, demand=sha256(NEW)).recorded_sha256() == sha256(NEW)


def test_a_wrong_file_in_place_is_moved_away(site: Site, output: Path) -> None:
    quick(site, output)
    output.write_bytes(NEW)
    with pytest.raises(WeightsError, match=f"got SHA-256 {sha256(NEW)}, expected {sha256(OLD)}; moved to"):
        quick(site, output)
    assert names(output) == ["model.pt.rejected", "model.pt.sha256"]
    assert output.with_name("model.pt.rejected").read_bytes() == NEW
    quick(site, output)
    assert output.read_bytes() == OLD


def test_a_file_put_in_place_by_hand_is_recorded(site: Site, output: Path) -> None:
    output.parent.mkdir()
    output.write_bytes(OLD)
    assert quick(site, output).recorded_sha256() == sha256(OLD)
    assert site.num_requests == 0


@pytest.mark.parametrize("text", ["", "deadbeef  model.pt\n", f"{sha256(OLD)}  other.pt\n", f"{sha256(OLD)}\n", "é\0"])
def test_an_unreadable_record_is_refused(site: Site, output: Path, text: str) -> None:
    quick(site, output)
    output.with_name("model.pt.sha256").write_text(text, encoding="latin-1")
    with pytest.raises(WeightsError, match=r"model.pt.sha256: got .*expected a SHA-256"):
        quick(site, output)
    assert names(output) == WHOLE


def test_a_file_without_its_recorded_digest_is_not_read(site: Site, output: Path) -> None:
    buffer = io.BytesIO()
    torch.save({"conv.0.bias": torch.ones(3)}, buffer)
    site.content = buffer.getvalue()
    assert list(quick(site, output).read_state_dict()) == ["conv.0.bias"]
    torch.save({"conv.0.bias": torch.zeros(3)}, output)
    with pytest.raises(WeightsError, match=r"got SHA-256 \w{64}, expected \w{64}; run 'ssd-triton fetch-weights"):
        WeightsFile(output).read_state_dict()
    output.with_name("model.pt.sha256").unlink()
    assert list(WeightsFile(output).read_state_dict()) == ["conv.0.bias"]


def test_a_file_that_cannot_be_written_is_one_line(site: Site, output: Path) -> None:
    """As on a full disk: the limit of a process on the size of files fails the same call, part of the way."""
    limited = ["bash", "-c", 'ulimit -f 100; exec "$@"', "limited", *script("--url", site.url, "--output", output)]
    result = subprocess.run(limited, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert f"error: {output}: File too large; fix that or choose another file, and run again" in result.stderr
    assert site.num_requests == 1
    assert names(output) == []


def test_a_folder_is_no_file_name(site: Site, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="got a folder"):
        quick(site, tmp_path)
    assert tmp_path.is_dir()


@pytest.mark.parametrize(
    "url",
    ["http://example.org/model.pt", "ftp://127.0.0.1/model.pt", "file:///etc/hostname", "model.pt", "https://[/x", ""],
)
def test_other_urls_than_https_are_refused(output: Path, url: str) -> None:
    with pytest.raises(WeightsError, match=r"expected https://.*--url"):
        fetch(url, output, retries=0)
    assert names(output) == []


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
    assert site.num_requests == 1


def test_the_script_fails_in_one_line(output: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = script("--url", f"http://127.0.0.1:{port}/model.pt", "--output", output, "--retries", "0")
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    program = ROOT / "tools/fetch_weights.py"
    assert result.stderr.startswith(f"{program}: error: http://127.0.0.1:{port}/model.pt: [Errno 111]")
    assert "run the same command again" in result.stderr


@pytest.mark.parametrize("arguments", [("--sha256", "abc"), ("--timeout-s", "nan"), ("--retries", "-1")])
def test_wrong_usage_exits_with_2(output: Path, arguments: tuple[str, str]) -> None:
    result = subprocess.run(script("--output", output, *arguments), capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert f"argument {arguments[0]}" in result.stderr
