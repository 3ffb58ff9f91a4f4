"""The clips of the Drive page: the rendered drive, those of a folder, and uploads.

A browser refers to a clip by an id that is looked up here. The name of a clip is only shown, and never part of a path.
"""

from __future__ import annotations

import errno
import logging
import re
import secrets
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

from ssd_triton.common.errors import UserError
from ssd_triton.common.files import printable_name
from ssd_triton.media.images import natural_key
from ssd_triton.viewing.bodies import RefusedError

RENDERED = "rendered"
"""Id of the drive that the project renders."""
_SUFFIXES = (".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi")
"""Suffixes of the videos that are listed from a folder."""
_CONTAINERS = re.compile(rb".{4}ftyp|\x1a\x45\xdf\xa3|RIFF.{4}AVI ", re.DOTALL)
"""First bytes of MP4 and MOV (ISO 14496-12), Matroska and WebM, and AVI. Uploads of any other kind are refused, since
FFmpeg also reads playlists, which can name other files of this machine."""
_HEAD_BYTES = 12
_ROOM_LEFT_BYTES = 1 << 30
"""Space that uploads leave free on the disk."""


def is_clip(head: bytes) -> bool:
    """Whether a file with these first bytes is accepted as a clip."""
    return _CONTAINERS.match(head) is not None


@dataclass(frozen=True)
class Clip:
    """A clip that a user can choose.

    Attributes:
        clip_id: Id by which a browser refers to it.
        name: Name that is shown.
        path: The video; None for the rendered drive.
    """

    clip_id: str
    name: str
    path: Path | None


class Clips:
    """All clips; a context manager that removes the uploads at its end.

    Args:
        folder: Folder of videos; None lists none.
        upload_bytes: Largest size of all uploads together.
        is_watched: Whether the clip with an id is being watched; such an upload is not removed to make room.

    Raises:
        UserError: There is no such folder.
    """

    def __init__(self, folder: Path | None, upload_bytes: int, is_watched: Callable[[str], bool]) -> None:
        self._listed: dict[str, Clip] = {}
        self._uploads: dict[str, tuple[Clip, Path]] = {}
        self._upload_bytes = upload_bytes
        self._is_watched = is_watched
        self._temporary = tempfile.TemporaryDirectory(prefix="ssd-view-")
        if folder is not None:
            if not folder.is_dir():
                raise UserError(f"{folder}: got no such folder, expected one of videos: give another --clips")
            videos = (path for path in folder.iterdir() if path.suffix.lower() in _SUFFIXES and path.is_file())
            for number, path in enumerate(sorted(videos, key=lambda path: natural_key(path.name))):
                clip_id = f"listed-{number}"
                self._listed[clip_id] = Clip(clip_id, printable_name(path.name), path)
        # Comes last, since the page plays the first clip automatically.
        self._listed[RENDERED] = Clip(RENDERED, "a rendered drive, whose car brakes", None)

    def __enter__(self) -> Clips:
        return self

    def __exit__(self, *_: object) -> None:
        self._temporary.cleanup()

    def to_json(self) -> list[dict[str, str]]:
        """Return id and name of each clip."""
        clips = (*self._listed.values(), *(clip for clip, _ in self._uploads.values()))
        return [{"id": clip.clip_id, "name": clip.name} for clip in clips]

    def find(self, clip_id: str) -> Clip:
        """Return the clip with an id.

        Raises:
            RefusedError: There is no such clip, or it was removed.
        """
        clip = self._listed.get(clip_id) or self._uploads.get(clip_id, (None, None))[0]
        if clip is None:
            raise RefusedError("got a clip that is not there (any longer): choose another", HTTPStatus.NOT_FOUND)
        return clip

    async def upload(self, name: str, parts: AsyncIterator[bytes]) -> Clip:
        """Store an uploaded clip.

        Args:
            name: Name to show.
            parts: Parts of its content, in order.

        Raises:
            RefusedError: It is not a video, or there is no room for it.
        """
        clip_id = f"upload-{secrets.token_hex(8)}"
        path = Path(self._temporary.name) / f"{clip_id}.video"
        try:
            await self._write(path, parts)
            self._make_room(path.stat().st_size)
        except BaseException as error:
            path.unlink(missing_ok=True)
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise _no_room() from error
            raise
        clip = Clip(clip_id, printable_name(name)[:200] or "an uploaded clip", path)
        self._uploads[clip_id] = clip, path
        return clip

    async def _write(self, path: Path, parts: AsyncIterator[bytes]) -> None:
        head = b""
        with path.open("xb") as file:
            async for part in parts:
                if len(head) < _HEAD_BYTES:
                    head += part[:_HEAD_BYTES]
                    if len(head) >= _HEAD_BYTES and not is_clip(head):
                        break
                if shutil.disk_usage(path.parent).free < _ROOM_LEFT_BYTES + len(part):
                    raise _no_room()
                file.write(part)
        if not is_clip(head):
            kinds = "MP4, MOV, MKV, WebM or AVI"
            raise RefusedError(f"got no video of a kind that can be uploaded, expected {kinds}: convert it")

    def _make_room(self, size_bytes: int) -> None:
        """Remove the oldest unwatched uploads until there is room for another one."""
        sizes = {clip_id: path.stat().st_size for clip_id, (_, path) in self._uploads.items()}
        for clip_id in [clip_id for clip_id in self._uploads if not self._is_watched(clip_id)]:
            if sum(sizes.values()) + size_bytes <= self._upload_bytes:
                return
            logging.info("removed the oldest uploaded clip to make room")
            self._uploads.pop(clip_id)[1].unlink(missing_ok=True)
            del sizes[clip_id]
        if sum(sizes.values()) + size_bytes > self._upload_bytes:
            raise _no_room()


def _no_room() -> RefusedError:
    return RefusedError(
        "got a clip for which there is no room, expected a smaller one: see view.upload_mib, and the disk",
        HTTPStatus.INSUFFICIENT_STORAGE,
    )
