"""What a command line names: found in its order, under names that no two share."""

from __future__ import annotations

from pathlib import Path

import pytest

from ssd_triton.client.sources import ImageSource, VideoSpec, find_sources
from ssd_triton.common.errors import ImageError, UserError
from ssd_triton.media import images
from tests.media.web import web_server


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


def test_addresses_of_images_are_recognised_by_their_content(photograph: bytes) -> None:
    with web_server({"/photo": photograph, "/clip.jpg": b"no image"}) as address:
        photo, clip, missing = find_sources([f"{address}/{name}" for name in ("photo", "clip.jpg", "none.jpg")])
        assert isinstance(photo, ImageSource)
        assert (photo.file, photo.name, photo.stem) == (f"{address}/photo", f"{address}/photo", "photo")
        assert photo.read() == photograph
        assert isinstance(clip, VideoSpec)
        assert isinstance(missing, VideoSpec)
        with pytest.raises(ImageError, match=r"none\.jpg: got no answer \(HTTP Error 404"):
            images.read_web(f"{address}/none.jpg")
    with pytest.raises(ImageError, match=r"got no answer \(.*refused"):
        photo.read()


def test_images_of_a_network_are_bounded(photograph: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    with web_server({"/photo": photograph}, pause_s=0.1) as address:
        monkeypatch.setattr(images, "FETCH_S", 0.3)
        with pytest.raises(ImageError, match=r"got \d+ bytes in 0 s, expected all"):
            images.read_web(f"{address}/photo")
    with web_server({"/photo": photograph}) as address:
        monkeypatch.setattr(images, "MAX_FILE_BYTES", 2000)
        with pytest.raises(ImageError, match="got more than 2000 bytes"):
            images.read_web(f"{address}/photo")


def test_names_that_no_disk_takes_are_refused() -> None:
    for name in ("x" * 300, "x/" * 3000, f"{'x' * 300}*"):
        with pytest.raises(UserError, match=r"cannot be read \(File name too long\)|matches nothing"):
            files(name)
