"""Pictures, results and the camera in a real browser, in front of a real server."""

from __future__ import annotations

import http.client
import io
import json
import re
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from PIL import Image
from playwright.sync_api import Browser, Playwright

from ssd_triton.client import DetectorClient
from tests.served.helpers import MAX_BOX_ERROR_PX
from tests.served.pages import Running, chromium, request, visit

REFUSED = "the server responded with a status of 422"
"""Chromium's own line about an answer in words."""


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
        "drive.mp4": b"\0\0\0\x20ftypisom" + bytes(100),
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
        assert "Drive plays videos" in tiles["drive.mp4"]
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
        # Chosen before the page has its settings: as on a slow network.
        seen.page.route("**/api/settings", lambda route: (time.sleep(1), route.continue_()))
        seen.page.reload(wait_until="commit")
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


SLOW_ENCODER = """() => {
  const encode = HTMLCanvasElement.prototype.toBlob;
  HTMLCanvasElement.prototype.toBlob = function (...args) { setTimeout(() => encode.apply(this, args), 1000); };
}"""
SLOW_PERMISSION = """() => {
  window.opened = [];
  const ask = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
  navigator.mediaDevices.getUserMedia = async (wanted) => {
    await new Promise((resolve) => setTimeout(resolve, 500));
    const stream = await ask(wanted);
    window.opened.push(...stream.getTracks());
    return stream;
  };
}"""


def test_camera_runs_at_the_server_s_rate_and_stops(browser: Browser, running: Running) -> None:
    with visit(browser, running.address) as seen:
        seen.turn_to("camera")
        seen.page.click("#camera-toggle")
        seen.has_text("#camera-figures", "frames/s")
        seen.page.wait_for_selector("#camera-frame rect.box")
        seen.keep("camera")
        # Frames are taken, but not yet encoded, while Stop is clicked.
        seen.page.evaluate(SLOW_ENCODER)
        seen.page.wait_for_timeout(500)
        asked = len(seen.requests)
        seen.page.click("#camera-toggle")
        seen.has_text("#camera-note", "Stopped.")
        seen.page.wait_for_timeout(2000)
        assert not [url for url in seen.requests[asked:] if "detect" in url]
        seen.check()


def test_camera_that_opens_after_the_page_was_left_is_closed(browser: Browser, running: Running) -> None:
    with visit(browser, running.address) as seen:
        seen.page.evaluate(SLOW_PERMISSION)
        seen.turn_to("camera")
        seen.page.click("#camera-toggle")
        seen.page.click("#camera-toggle")
        seen.turn_to("drive")
        seen.page.wait_for_timeout(2000)
        assert seen.page.evaluate("window.opened.map((track) => track.readyState)") == ["ended"]
        seen.turn_to("camera")
        seen.page.click("#camera-toggle")
        seen.page.wait_for_selector("#camera-frame rect.box")
        seen.check()


def test_no_camera_is_one_line(playwright: Playwright, running: Running) -> None:
    with chromium(playwright, has_camera=False) as without, visit(without, running.address) as seen:
        seen.turn_to("camera")
        seen.page.click("#camera-toggle")
        seen.has_text("#camera-note", "got no ")
        assert seen.text("#camera-toggle") == "Start"
        seen.check()
