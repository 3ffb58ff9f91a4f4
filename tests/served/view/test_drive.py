"""Drives in the page: in the browser, and through the WebSocket that it watches them by."""

from __future__ import annotations

import json
import struct
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Route, WebSocket
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from ssd_triton.driving.drawing.road_marks import BAR_AND_ARROW
from tests.served.pages import CLIP, FRAMES, Running, request, visit


def test_a_page_that_was_left_while_clips_were_listed_opens_no_drive(browser: Browser, running: Running) -> None:
    with visit(browser, running.address) as seen:
        drives, held = [], []

        def keep(drive: WebSocket) -> None:
            drives.append(drive)

        def hold(route: Route) -> None:
            held.append(route)

        seen.page.on("websocket", keep)
        seen.page.route("**/api/clips", hold)
        seen.turn_to("drive")
        seen.page.wait_for_timeout(300)
        seen.turn_to("server")
        held.pop().continue_()
        seen.page.wait_for_timeout(1000)
        assert drives == []
        seen.page.unroute("**/api/clips")
        seen.turn_to("drive")
        seen.has_text("#drive-caption", f"of {FRAMES}")
        assert len(drives) == 1
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
        assert seen.text("#road-captions").startswith("50 km/h, ")
        # The person that fills the image is in the corridor, once it counts: a bar with its two caps.
        bars = seen.page.locator("#road .bar")
        while bars.count() == 0 and frame() < FRAMES:
            after = frame() + 1
            seen.page.click("#drive-step")
            seen.has_text("#drive-caption", f"frame {after} of {FRAMES}")
        assert bars.first.locator("line").count() == 3
        assert seen.text("#road-legend") == BAR_AND_ARROW
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
