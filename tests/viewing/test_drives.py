"""Clips that are uploaded, and the controls of a drive."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from ssd_triton.common.errors import UserError
from ssd_triton.viewing import clips as clips_module
from ssd_triton.viewing.bodies import RefusedError
from ssd_triton.viewing.clips import RENDERED, Clips
from ssd_triton.viewing.player import Player

MP4 = b"\0\0\0\x20ftypisom" + bytes(1000)
INFINITE = float("inf")


async def parts(content: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(content), 5):
        yield content[start : start + 5]


def upload(clips: Clips, content: bytes, name: str = "drive.mp4") -> str:
    return asyncio.run(clips.upload(name, parts(content))).clip_id


def made(tmp_path: Path, is_watched: Callable[[str], bool] = lambda clip_id: False) -> Clips:
    return Clips(None, 2500, is_watched)


def files_of(clips: Clips) -> list[Path]:
    return list(Path(clips._temporary.name).iterdir())


def test_names_are_shown_and_never_part_of_a_path(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    for name in ("10.mp4", "2.MP4", "notes.txt", ".hidden"):
        (tmp_path / "videos" / name).write_bytes(MP4)
    with Clips(tmp_path / "videos", 10_000, lambda clip_id: False) as clips:
        clip_id = upload(clips, MP4, "../../etc/\x1b[2Jpasswd")
        names = [clip["name"] for clip in clips.to_json()]
        assert names == ["2.MP4", "10.mp4", "a rendered drive, whose car brakes", "../../etc/\\x1b[2Jpasswd"]
        [file] = files_of(clips)
        assert clips.find(clip_id).path == file
        for unknown in ("", "../videos/2.MP4", "listed-2", str(tmp_path / "videos/notes.txt")):
            with pytest.raises(RefusedError, match="not there"):
                clips.find(unknown)
    assert not file.exists()
    with pytest.raises(UserError, match="got no such folder"):
        Clips(tmp_path / "nowhere", 1, lambda clip_id: False)


@pytest.mark.parametrize("content", [b"", b"MP4", b"#EXTM3U\nfile:///etc/passwd\n", b"ffconcat version 1.0\nfile x"])
def test_what_is_no_video_is_refused_and_leaves_nothing(tmp_path: Path, content: bytes) -> None:
    with made(tmp_path) as clips:
        with pytest.raises(RefusedError, match="got no video"):
            upload(clips, content)
        assert files_of(clips) == []
        assert len(clips.to_json()) == 1


def test_the_oldest_upload_that_nobody_watches_makes_way(tmp_path: Path) -> None:
    watched: set[str] = set()
    with made(tmp_path, watched.__contains__) as clips:
        first, second = upload(clips, MP4), upload(clips, MP4)
        watched.add(first)
        third = upload(clips, MP4)
        assert {clip["id"] for clip in clips.to_json()} == {RENDERED, first, third}
        with pytest.raises(RefusedError):
            clips.find(second)
        watched.add(third)
        with pytest.raises(RefusedError, match="no room"):
            upload(clips, MP4)
        assert len(files_of(clips)) == 2


def test_an_upload_beyond_the_disk_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clips_module, "_ROOM_LEFT_BYTES", 1 << 60)  # no disk has as much
    with made(tmp_path) as clips:
        with pytest.raises(RefusedError, match="no room"):
            upload(clips, MP4)
        assert files_of(clips) == []


def test_a_drive_keeps_its_pace_and_does_not_hurry_after_a_pause() -> None:
    player, start_s = Player(), time.monotonic()
    for time_s in (5.0, 5.1, 5.2):
        assert player.wait(time_s) == "frame"
    assert time.monotonic() - start_s >= 0.2
    player.control({"do": "speed", "speed": 0.0})
    start_s = time.monotonic()
    assert player.wait(500.0) == "frame"
    assert time.monotonic() - start_s < 10


def test_a_step_lets_one_frame_through() -> None:
    player = Player()
    passed: list[str] = []
    player.control({"do": "pause"})

    def play() -> None:
        for time_s in (0.0, 0.1, INFINITE):
            passed.append(player.wait(time_s))

    thread = threading.Thread(target=play)
    thread.start()
    time.sleep(0.1)
    assert passed == []
    player.control({"do": "step"})
    deadline_s = time.monotonic() + 5
    while not passed and time.monotonic() < deadline_s:
        time.sleep(0.01)
    time.sleep(0.1)
    assert (passed, player.paused) == (["frame"], True)
    player.control({"do": "no such thing"})
    player.control({"do": "speed", "speed": "fast"})
    player.control({"do": "play"})
    time.sleep(0.1)
    player.control({"do": "restart"})
    thread.join(5)
    assert passed == ["frame", "frame", "restart"]
    player.close()
    assert player.wait(INFINITE) == "close"
