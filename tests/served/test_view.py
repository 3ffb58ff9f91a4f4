"""The live page in a real browser, in front of a real server."""

from __future__ import annotations

import http.client
import io
import json
import re
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Browser, Playwright, sync_playwright
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from ssd_triton.client import DetectorClient
from ssd_triton.media.video import VideoWriter
from ssd_triton.serving.server import EmbeddedServer
from tests.conftest import assert_one_line_error
from tests.served.helpers import MAX_BOX_ERROR_PX, Gate
from tests.served.pages import chromium, running_page, visit
from tests.served.proxies import Certificates

CLIP = "pan.mp4"
FRAMES, FPS = 40, 20
REFUSED = "the server responded with a status of 422"
"""Chromium's own line about an answer in words."""


@dataclass(frozen=True)
class Running:
    """A page that runs.

    Attributes:
        address: Of the page.
        log: What it printed.
    """

    address: str
    log: Path


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory, photograph_rgb: np.ndarray) -> Path:
    """A folder with a clip that pans over the photograph."""
    folder = tmp_path_factory.mktemp("clips")
    with VideoWriter(folder / CLIP, (480, 360), FPS) as writer:
        for index in range(FRAMES):
            writer.write(np.ascontiguousarray(photograph_rgb[index : index + 360, 16:496]), index / FPS)
    return folder


@pytest.fixture(scope="module")
def running(light_server: EmbeddedServer, clips: Path) -> Iterator[Running]:
    options = ("--url", light_server.url("grpc"), "--metrics-url", light_server.metrics_url, "--clips", clips)
    with running_page(*options) as (address, log):
        yield Running(address, log)


@pytest.fixture(scope="module")
def playwright() -> Iterator[Playwright]:
    with sync_playwright() as driver:
        yield driver


@pytest.fixture(scope="module")
def browser(playwright: Playwright) -> Iterator[Browser]:
    with chromium(playwright) as opened:
        yield opened


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


def drawn_boxes(page: Any) -> np.ndarray:
    """Left, top, right, bottom of the boxes in the page, in pixels of the picture, sorted."""
    read = "boxes => boxes.map(b => ['x', 'y', 'width', 'height'].map(n => Number(b.getAttribute(n))))"
    sides = np.array(page.eval_on_selector_all("#try-frame rect.box", read)).reshape(-1, 4)
    sides[:, 2:] += sides[:, :2]
    return sides[np.lexsort(sides.T)]


def test_pictures_are_shown_with_the_boxes_of_the_client(
    browser: Browser, running: Running, light_grpc_detector: DetectorClient, photograph: bytes, tmp_path: Path
) -> None:
    tiff, turned = tmp_path / "scan.tiff", tmp_path / "turned.jpg"
    with Image.open(io.BytesIO(photograph)) as image:
        image.save(tiff)
        exif = Image.Exif()
        exif[0x0112] = 6
        image.save(turned, exif=exif)
    script = tmp_path / "<img src=x onerror=alert(1)>.svg"
    script.write_text("<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>")
    expected = light_grpc_detector.detect(photograph).filter(score_thresh=0.1)
    boxes = expected.boxes_xyxy[np.lexsort(expected.boxes_xyxy.T)]
    assert len(boxes) > 1
    with visit(browser, running.address) as seen:
        page = seen.page
        page.wait_for_selector("#try-frame rect.box")
        page.fill("#score", "0.1")
        np.testing.assert_allclose(drawn_boxes(page), boxes, atol=MAX_BOX_ERROR_PX)
        seen.has_text("#times", "postprocess")
        page.set_input_files("#files", [tiff, turned, script])
        page.wait_for_selector("#try-note.bad")
        assert seen.text("#try-note").startswith(f"{script.name}: got SVG or other XML")
        np.testing.assert_allclose(drawn_boxes(page), boxes, atol=MAX_BOX_ERROR_PX)
        assert "TIFF" in seen.text("#try-caption")
        assert page.evaluate("document.querySelector('#try-frame img').naturalWidth") == 512
        seen.keep("try")
        with page.expect_download() as download:
            page.click("[data-download=json]")
        results = json.loads(Path(download.value.path()).read_bytes())
        assert [result["file"] for result in results] == ["scan.tiff", "turned.jpg", script.name]
        assert results[0]["detections"] == expected.with_labels(_labels(seen)).to_json()
        assert "SVG" in results[2]["error"]
        # EXIF turns it in other programs; here the picture has the pixels that the detector has.
        page.click("#sheet >> text=turned.jpg")
        assert "EXIF" in seen.text("#try-caption")
        page.fill("#score", "0.5")
        with page.expect_download() as download:
            page.click("[data-download=picture]")
        with Image.open(download.value.path()) as painted, Image.open(turned) as stored:
            assert download.value.suggested_filename == "turned.annotated.jpg"
            assert painted.size == stored.size
            inside = (slice(300, 400), slice(200, 300))
            difference = np.asarray(painted)[inside].astype(int) - np.asarray(stored.convert("RGB"))[inside]
            assert np.abs(difference).mean() < 5
        page.fill("#score", "0.99")
        assert len(drawn_boxes(page)) < len(boxes)
        seen.check(REFUSED)
    assert "refused: /api/detect: " in running.log.read_text()


def _labels(seen: Any) -> tuple[str, ...]:
    return tuple(request(seen.address, "GET", "/api/settings")[1]["labels"])


def kinds_of_pictures(folder: Path, photograph: bytes) -> dict[str, bool]:
    """Files as people have them, and whether each is answered."""
    with Image.open(io.BytesIO(photograph)) as image:
        image.load()
    saved: dict[str, tuple[Image.Image, dict[str, Any]]] = {
        "progressive.jpg": (image, {"progressive": True}),
        "print.jpg": (image.convert("CMYK"), {}),
        "palette.gif": (image.convert("P"), {}),
        "clear.png": (image.convert("RGBA"), {}),
        "grey16.png": (Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257), {}),
        "photo.webp": (image, {}),
        "photo.bmp": (image, {}),
        "photo.ppm": (image, {}),
        "photo.avif": (image, {}),
        "photo.jp2": (image, {}),
    }
    for name, (picture, options) in saved.items():
        picture.save(folder / name, **options)
    image.save(folder / "moving.gif", save_all=True, append_images=[image.rotate(90)])
    image.resize((7, 7)).save(folder / "tiny.png")
    refused = {
        "cut.jpg": photograph[:2000],
        "empty.jpg": b"",
        "text.png": b"no picture",
        "scan.pdf": b"%PDF-1.4",
        "base64.txt": b"/9j/4AAQSkZJRg==",
    }
    for name, content in refused.items():
        (folder / name).write_bytes(content)
    return {**dict.fromkeys(saved, True), **dict.fromkeys([*refused, "moving.gif", "tiny.png"], False)}


def test_every_kind_of_picture_is_answered_or_refused_in_words(
    browser: Browser, running: Running, photograph: bytes, tmp_path: Path
) -> None:
    kinds = kinds_of_pictures(tmp_path, photograph)
    with visit(browser, running.address) as seen:
        seen.page.wait_for_selector("#try-frame rect.box")
        seen.page.set_input_files("#files", [tmp_path / name for name in kinds])
        seen.page.wait_for_selector("#try-note.bad", timeout=60_000)
        tiles = {tile.split("\n")[0]: tile for tile in seen.page.locator("#sheet li").all_inner_texts()}
        assert {name: "detection" in tile for name, tile in tiles.items()} == kinds
        told = [tiles[name] for name, is_answered in kinds.items() if not is_answered]
        assert all(re.search("got |damaged|truncated", tile) for tile in told), told
        read = "images => images.map(image => image.decode().then(() => image.naturalWidth, () => 0))"
        assert all(seen.page.eval_on_selector_all("#sheet img", f"images => Promise.all(({read})(images))"))
        seen.keep("kinds")
        seen.check(REFUSED)


def test_many_pictures_and_large_ones_are_told_in_one_line(browser: Browser, running: Running, tmp_path: Path) -> None:
    small = io.BytesIO()
    Image.new("RGB", (16, 16), (90, 120, 60)).save(small, "PNG")
    many = [tmp_path / f"{number}.png" for number in range(101)]
    for path in many[1:]:
        path.write_bytes(small.getvalue())
    with many[0].open("wb") as sparse:
        sparse.truncate((64 << 20) + 1)
    with visit(browser, running.address) as seen:
        seen.page.set_input_files("#files", many)
        seen.page.wait_for_selector("#try-note.bad", timeout=60_000)
        note = seen.text("#try-note")
        assert note.startswith("took the first 100 of 101")
        assert "0.png: got 64 MiB, expected at most 64 MiB" in note
        assert len(seen.page.query_selector_all("#sheet li")) == 100
        seen.check()


def test_results_are_the_files_that_detect_writes(running: Running) -> None:
    found = {"box_xyxy": [1, 2, 3.5, 4], "score": 0.5, "class_id": 1, "class_name": "ignored"}
    results = [
        {"file": '=cmd|"x', "size_px": [10, 10], "detections": [found]},
        {"file": "b.png", "error": "no image"},
    ]
    connection = http.client.HTTPConnection(urlsplit(running.address).netloc, timeout=30)
    connection.request("POST", "/api/results?format=csv", json.dumps(results))
    lines = connection.getresponse().read().decode().splitlines()
    assert lines[1:] == ['"=cmd|""x",,,1,person,0.5,1.0,2.0,3.5,4.0,', "b.png,,,,,,,,,,no image"]
    status, coco = request(running.address, "POST", "/api/results?format=coco", json.dumps(results).encode())
    assert (status, coco["annotations"][0]["bbox"]) == (200, [1.0, 2.0, 2.5, 2.0])
    for path, body in (
        ("/api/results?format=xml", b"[]"),
        ("/api/results?format=json", b"{"),
        ("/api/results?format=json", b"[" * 100_000),
        ("/api/results?format=json", json.dumps([{"file": "a", "detections": [{**found, "class_id": 900}]}]).encode()),
        (
            "/api/results?format=json",
            b'[{"file": "a", "detections": [{"box_xyxy": [1, NaN, 3, 4], "score": 1, "class_id": 1}]}]',
        ),
    ):
        status, answer = request(running.address, "POST", path, body)
        assert (status, "got " in answer["error"]) == (400, True)


def test_camera_runs_at_the_server_s_rate_and_stops(browser: Browser, running: Running) -> None:
    with visit(browser, running.address) as seen:
        seen.turn_to("camera")
        seen.page.click("#camera-toggle")
        seen.has_text("#camera-figures", "frames/s")
        seen.page.wait_for_selector("#camera-frame rect.box")
        seen.keep("camera")
        seen.page.click("#camera-toggle")
        seen.has_text("#camera-note", "Stopped.")
        asked = len(seen.requests)
        seen.page.wait_for_timeout(300)
        assert not [url for url in seen.requests[asked:] if "detect" in url]
        seen.check()


def test_drive_plays_steps_and_shows_its_evidence(browser: Browser, running: Running) -> None:
    with visit(browser, running.address) as seen:
        seen.page.evaluate("location.hash = 'drive'")
        seen.page.select_option("#clip", label=CLIP)
        seen.page.select_option("#speed", label="0.25 ×")
        seen.has_text("#drive-caption", f"of {FRAMES}")
        seen.page.click("#drive-play")
        seen.has_text("#drive-play", "Play")
        seen.page.wait_for_timeout(300)

        def frame() -> int:
            return int(seen.text("#drive-caption").split("frame ")[1].split()[0])

        paused_at = frame()
        seen.page.keyboard.press("Tab")
        seen.page.click("#drive-step")
        seen.has_text("#drive-caption", f"frame {paused_at + 1} of {FRAMES}")
        assert seen.text("#drive-banner strong") in ("SAFE", "WARN", "BRAKE", "NO DATA")
        assert seen.text("#drive-banner span")
        seen.has_text("#evidence", "own speed")
        assert "warn" in (seen.page.text_content("#road") or "")
        assert "own 50.0 km/h" in (seen.page.get_attribute("#timeline canvas >> nth=1", "aria-label") or "")
        seen.keep("drive")
        seen.page.select_option("#speed", label="as fast as it goes")
        seen.page.click("#drive-play")
        seen.has_text("#drive-note", "the clip has ended")
        seen.page.click("#drive-restart")
        seen.has_text("#drive-note", "the clip has ended")
        seen.check()


def test_an_uploaded_clip_is_driven_and_another_file_refused(
    browser: Browser, running: Running, clips: Path, tmp_path: Path
) -> None:
    playlist = tmp_path / "list.mp4"
    playlist.write_text("#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n")
    upload = tmp_path / "<b>mine.mp4"
    upload.write_bytes((clips / CLIP).read_bytes())
    with visit(browser, running.address) as seen:
        seen.page.evaluate("location.hash = 'drive'")
        seen.page.wait_for_selector("#clip option", state="attached")
        seen.page.set_input_files("#clip-file", playlist)
        seen.has_text("#clip-note", "got no video of a kind that can be uploaded")
        seen.page.set_input_files("#clip-file", upload)
        seen.has_text("#clip option:checked", upload.name)
        seen.has_text("#drive-caption", f"of {FRAMES}")
        seen.check("status of 400")


def watch(address: str, clip_id: str) -> ClientConnection:
    netloc = urlsplit(address).netloc
    return connect(f"ws://{netloc}/api/drive?clip={clip_id}", origin=f"http://{netloc}", max_size=None)  # type: ignore[arg-type]


def next_frame(socket: ClientConnection, run: int, points: int) -> tuple[dict[str, Any], dict[str, Any], bytes]:
    """Ask for a frame: its header, the timeline's news, and the JPEG."""
    socket.send(json.dumps({"run": run, "points": points}))
    message, parts = socket.recv(timeout=30), []
    assert isinstance(message, bytes)
    for _ in range(2):
        (length,) = struct.unpack_from("<I", message)
        parts.append(json.loads(message[4 : 4 + length]))
        message = message[4 + length :]
    return parts[0], parts[1], message


def test_a_slow_browser_slows_nobody_and_misses_no_point(running: Running) -> None:
    """One never asks again, one asks late, and one gets its frames as if it were alone."""
    clip = next(clip["id"] for clip in request(running.address, "GET", "/api/clips")[1] if clip["name"] == CLIP)
    with (
        watch(running.address, clip) as stuck,
        watch(running.address, clip) as late,
        watch(running.address, clip) as quick,
    ):
        stuck.send(json.dumps({"run": -1, "points": 0}))
        next_frame(late, -1, 0)
        run, points, frames = -1, 0, 0
        start_s = time.monotonic()
        while True:
            header, news, jpeg = next_frame(quick, run, points)
            assert news["watching"] == 3
            points = points if news["run"] == run else 0
            assert news["first"] == points
            run, points = news["run"], points + len(news["points"])
            frames += bool(jpeg)
            if header.get("ended"):
                break
        assert points == FRAMES
        assert frames > FRAMES / 4
        assert time.monotonic() - start_s < 30
        header, news, _ = next_frame(late, run, 0)
        assert (header["ended"], len(news["points"])) == (True, FRAMES)
    with watch(running.address, "nowhere") as socket, pytest.raises(ConnectionClosed, match="not there"):
        socket.recv(timeout=10)


@pytest.mark.parametrize(
    "command",
    ["[", "[" * 2000, "[7]", "7", '{"run": 1e999, "points": 1}', '{"run": 1}', b"bytes"],
    ids=map(str, range(7)),
)
def test_what_is_no_command_ends_that_connection_alone(running: Running, command: str | bytes) -> None:
    clip = next(clip["id"] for clip in request(running.address, "GET", "/api/clips")[1] if clip["name"] == CLIP)
    with watch(running.address, clip) as good, watch(running.address, clip) as bad:
        bad.send(command)
        with pytest.raises(ConnectionClosed, match="no command of this page"):
            bad.recv(timeout=10)
        assert next_frame(good, -1, 0)


def test_twenty_pages_at_once(running: Running) -> None:
    clip = next(clip["id"] for clip in request(running.address, "GET", "/api/clips")[1] if clip["name"] == CLIP)
    ended: list[float] = []

    def look() -> None:
        with watch(running.address, clip) as socket:
            run, points = -1, 0
            while True:
                header, news, _ = next_frame(socket, run, points)
                run, points = news["run"], news["first"] + len(news["points"])
                if header.get("ended"):
                    ended.append(points)
                    return

    threads = [threading.Thread(target=look) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert ended == [FRAMES] * 20


def test_server_page_shows_what_status_knows(browser: Browser, running: Running, photograph: bytes) -> None:
    with visit(browser, running.address) as seen:
        seen.turn_to("server")
        seen.has_text("#server-figures", "onnx_fp32")
        for _ in range(3):
            request(running.address, "POST", "/api/detect", photograph)
        seen.has_text("#models", "ssd_postprocess")
        seen.page.wait_for_selector('#server-charts canvas[aria-label^="Images a second: images "]')
        assert "Triton 2." in seen.text("#health")
        seen.keep("server")
        seen.check()


@pytest.mark.parametrize(("width_px", "dark"), [(1280, False), (390, True)])
def test_pages_are_accessible(browser: Browser, running: Running, width_px: int, dark: bool) -> None:
    """No finding of axe-core that it calls serious or critical, and no scrolling sideways on a phone."""
    with visit(browser, running.address, width_px=width_px, dark=dark) as seen:
        seen.page.wait_for_selector("#try-frame rect.box")
        for name in ("try", "camera", "drive", "server"):
            seen.turn_to(name)
            if name == "drive":
                seen.page.select_option("#clip", label=CLIP)
                seen.has_text("#drive-caption", f"of {FRAMES}")
            if name == "server":
                seen.has_text("#models", "ssd_postprocess")
            seen.keep(f"{name}-{width_px}-{'dark' if dark else 'light'}")
            results = Axe().run(seen.page).response
            serious = [one for one in results["violations"] if one["impact"] in ("serious", "critical")]
            assert [(one["id"], [node["html"] for node in one["nodes"]]) for one in serious] == []
            assert seen.page.evaluate("document.documentElement.scrollWidth") <= width_px


def test_page_is_light_and_quick(browser: Browser, running: Running) -> None:
    with visit(browser, running.address) as seen:
        seen.page.wait_for_selector("#try-frame rect.box")
        own = "performance.getEntriesByType('resource').filter(e => !e.name.includes('/api/'))"
        weight = seen.page.evaluate(f"{own}.reduce((sum, entry) => sum + entry.decodedBodySize, 0)")
        assert 10_000 < weight < 300_000
        (paint_ms,) = seen.page.evaluate(
            "performance.getEntriesByName('first-contentful-paint').map(entry => entry.startTime)"
        )
        # 0.2 s on an idle machine; the tests run beside others.
        assert paint_ms < 5000


def test_a_page_outlives_a_restart_of_the_server(browser: Browser, light_server: EmbeddedServer) -> None:
    gate = Gate(light_server.url("grpc"))
    with running_page("--url", gate.url, "--metrics-url", light_server.metrics_url) as (address, _):
        with visit(browser, address) as seen:
            seen.has_text("#alert", "the server does not answer")
            gate.open()
            seen.has_text("#health", "ready")
            seen.page.wait_for_selector("#try-frame rect.box")
            assert not seen.page.is_visible("#alert")
            seen.check("status of 503")
    gate.close()


def test_no_camera_is_one_line(playwright: Playwright, running: Running) -> None:
    with chromium(playwright, has_camera=False) as without, visit(without, running.address) as seen:
        seen.turn_to("camera")
        seen.page.click("#camera-toggle")
        seen.has_text("#camera-note", "got no ")
        assert seen.text("#camera-toggle") == "Start"
        seen.check()


def test_beyond_loopback_the_page_takes_tls_and_a_token(
    light_server: EmbeddedServer, certificates: Certificates, run_main: Callable[..., Any]
) -> None:
    everywhere = "0.0.0.0"  # noqa: S104 - what is tested
    result = run_main("clients/live_view.py", "--host", everywhere, "--port", "0", "--no-browser")
    assert_one_line_error(result, "without TLS", "--page-certificate")
    pair = certificates.server
    options = ("--host", everywhere, "--page-certificate", pair.certificate, "--page-private-key", pair.private_key)
    with running_page("--url", light_server.url("grpc"), *options) as (address, log):
        parts = urlsplit(address)
        assert parts.scheme == "https"
        context = ssl.create_default_context(cafile=str(certificates.authority))

        def get(path: str, cookie: str = "") -> http.client.HTTPResponse:
            connection = http.client.HTTPSConnection("127.0.0.1", parts.port, context=context, timeout=30)
            connection.request("GET", path, headers={"Cookie": cookie} if cookie else {})
            answer = connection.getresponse()
            answer.read()
            connection.close()
            return answer

        assert [get(path).status for path in ("/", "/api/status", "/?token=wrong")] == [403] * 3
        entered = get(f"/?{parts.query}")
        assert entered.status == 303
        cookie = (entered.getheader("set-cookie") or "").split(";")[0]
        assert get("/api/status", cookie).status == 200
        assert log.read_text().count(parts.query) == 1


def test_a_taken_port_is_one_line(running: Running, run_main: Callable[..., Any], light_server: EmbeddedServer) -> None:
    port = urlsplit(running.address).port
    result = run_main("clients/live_view.py", "--port", port, "--no-browser", "--url", light_server.url("grpc"))
    assert_one_line_error(result, f"cannot listen on 127.0.0.1:{port}", "--port")


def test_a_server_that_does_not_start_ends_the_page_in_one_line(run_script: Callable[..., Any], tmp_path: Path) -> None:
    options = ("--serve", "onnx_fp32", "--no-browser", "--port", "0", "--set", "server.startup_timeout_s=0.01")
    result = run_script("clients/live_view.py", *options)
    assert_one_line_error(result, "tritonserver was not ready after 0.01 s")
    assert result.stdout.startswith("page: http://127.0.0.1:")
