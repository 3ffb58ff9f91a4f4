"""What a command line names: found in its order, under names that no two share."""

from __future__ import annotations

from pathlib import Path

import pytest

from ssd_triton.client.sources import ImageSource, VideoSpec, find_sources
from ssd_triton.common.errors import UserError


@pytest.fixture
def folder(tmp_path: Path, photograph: bytes, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("in/10.jpg", "in/2.jpg", "in/sub/2.png", "in/.hidden/3.jpg", "in/sub.jpg/4.jpg", "[x].jpg"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(photograph)
    (tmp_path / "in/notes.txt").write_text("none")
    (tmp_path / "in/loop").symlink_to("..", target_is_directory=True)
    return tmp_path


def files(*inputs: str, recursive: bool = False) -> list[str]:
    return [source.file for source in find_sources(inputs, recursive=recursive)]


def test_folders(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert files("in") == ["in/2.jpg", "in/10.jpg"]
    assert "notes.txt (not an image), sub.jpg (a folder)" in caplog.text
    caplog.clear()
    assert files("in", recursive=True) == ["in/2.jpg", "in/10.jpg", "in/sub/2.png", "in/sub.jpg/4.jpg"]
    assert "1 of 5 entries are no images and were skipped: notes.txt" in caplog.text
    stems = [source.stem for source in find_sources(["in", "in/2.jpg", "in/sub"], recursive=True)]
    assert stems == ["2", "10", "sub/2", "sub.jpg/4", "2.2", "2.3"]
    (folder / "outer/inner").mkdir(parents=True)
    (folder / "outer/inner/1.jpg").symlink_to(folder / "in/2.jpg")
    with pytest.raises(UserError, match="or --recursive"):
        files("outer")
    assert files("outer", recursive=True) == ["outer/inner/1.jpg"]


def test_patterns(folder: Path) -> None:
    assert files("in/*.jpg") == ["in/2.jpg", "in/10.jpg", "in/sub.jpg/4.jpg"]
    assert files(f"{folder}/in/**/2.*") == [f"{folder}/in/2.jpg", f"{folder}/in/sub/2.png"]
    assert files("**/*.png") == ["in/sub/2.png"]
    assert files("[x].jpg") == ["[x].jpg"]
    with pytest.raises(UserError, match=r"nope\*\.jpg: got a pattern that matches nothing"):
        files("nope*.jpg")
    with pytest.raises(UserError, match="not found: nope"):
        files("nope.jpg")


def test_videos_streams_and_cameras(folder: Path) -> None:
    (folder / "0").write_text("a file called 0 is no camera")
    sources = find_sources(["1", "0", "rtsp://me:secret@cam.example/live.sdp", "in/notes.txt", "-"])
    assert [(type(source), source.file, source.stem) for source in sources] == [
        (VideoSpec, "camera 1", "camera_1"),
        (VideoSpec, "0", "0"),
        (VideoSpec, "rtsp://cam.example/live.sdp", "live"),
        (VideoSpec, "in/notes.txt", "notes"),
        (ImageSource, "-", "stdin"),
    ]
    assert [source.spec for source in sources if isinstance(source, VideoSpec)] == [
        "1",
        str(folder / "0"),
        "rtsp://me:secret@cam.example/live.sdp",
        str(folder / "in/notes.txt"),
    ]


def test_what_people_take_for_an_image_is_refused_as_one(folder: Path) -> None:
    (folder / "logo.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    (source,) = find_sources(["logo.svg"])
    assert isinstance(source, ImageSource)
    with pytest.raises(UserError, match=r"logo\.svg: got SVG"):
        source.read()
