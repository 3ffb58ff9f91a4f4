"""Frames with timestamps, from a video file, a folder of images or a camera."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from types import TracebackType

import av
import av.error
import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from ssd_triton.common.arrays import UInt8Array
from ssd_triton.common.errors import VideoError
from ssd_triton.common.files import relative_to_cwd
from ssd_triton.media.images import IMAGE_SUFFIXES, list_images

_DAMAGED_IMAGE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)
"""What Pillow's decoders raise on damaged files."""

_FALLBACK_FPS = 25.0
"""Nominal rate of a file without one (raw H.264): PAL's, and FFmpeg's own default."""

_CAMERA_FALLBACK_FPS = 30.0
"""Nominal rate of a camera whose driver reports none: the usual rate of USB cameras."""

_SHORTEST_STEP_S = 1 / 90_000
"""A tick of MPEG's 90 kHz clock: frames closer together have the same time in a video file."""


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture.

    Attributes:
        image_rgb: UINT8 [H, W, 3], RGB, upright, contiguous; it may be read-only.
        time_s: Presentation time in seconds, from 0 and strictly rising.
        index: 0, 1, 2, … over the yielded frames.
    """

    image_rgb: UInt8Array
    time_s: float
    index: int


class VideoSource(ABC):
    """Frames of one size, in order of presentation; a context manager that can be iterated once.

    Attributes:
        name: Name of the source, for messages.
        size_px: Width and height of every frame, in pixels.
        fps: Nominal frames per second; the frames' own timestamps can differ.
        frame_count: Stated number of frames; None if unknown, as for a camera.
        is_live: Whether frames arrive in real time, as from a camera.
        undecodable_frames: Frames skipped so far because they could not be decoded without damage.
        retimed_frames: Frames so far whose timestamp was missing or not rising; they were placed by the nominal rate.
    """

    is_live = False

    def __init__(self, name: str, size_px: tuple[int, int], fps: float, frame_count: int | None) -> None:
        self.name = name
        self.size_px = size_px
        self.fps = fps
        self.frame_count = frame_count
        self.undecodable_frames = 0
        self.retimed_frames = 0

    @abstractmethod
    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames.

        Raises:
            VideoError: An image cannot be read, the size changes, or the source stops working.
        """

    @abstractmethod
    def close(self) -> None:
        """Close the file or the camera."""

    def __enter__(self) -> VideoSource:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _check_size(self, image_rgb: UInt8Array, what: str) -> None:
        size_px = (image_rgb.shape[1], image_rgb.shape[0])
        if size_px != self.size_px:
            raise VideoError(_size_message(what, size_px, self.size_px))


def open_source(spec: str, *, image_folder_fps: float) -> VideoSource:
    """Open a video file, a folder of images, or a camera.

    Opening decodes the first frame of a video, and reads the header of every image in a folder, so that most errors
    appear before slow work begins.

    Args:
        spec: A path, or the index of a camera in decimal digits (``./0`` is a file of that name).
        image_folder_fps: Frames per second of a folder of images, above 0.

    Raises:
        VideoError: ``spec`` cannot be read as any of these.
    """
    if spec.isdecimal():
        return _Camera(int(spec))
    path = Path(spec)
    if path.is_dir():
        return _ImageFolder(path, image_folder_fps)
    if not path.exists():
        raise _refusal(relative_to_cwd(path), "no such file", "give another --video")
    return _VideoFile(path)


class _VideoFile(VideoSource):
    """A video file, read by FFmpeg's libraries; a rotation in the metadata (phones) is applied."""

    def __init__(self, path: Path) -> None:
        name = relative_to_cwd(path)
        try:
            # Broken metadata (titles in another encoding) does not affect the pictures.
            self._container = av.open(str(path), metadata_errors="replace")
        except av.error.FFmpegError as error:
            why = f"cannot be read as a video ({error.strerror})"
            raise _refusal(name, why, "check that it plays, or give another --video") from error
        with ExitStack() as on_failure:
            on_failure.callback(self._container.close)
            if not self._container.streams.video:
                raise _refusal(name, "holds no video stream", "give another --video")
            self._stream = self._container.streams.video[0]
            fps = float(self._stream.average_rate or self._stream.guessed_rate or _FALLBACK_FPS)
            super().__init__(name, (0, 0), fps, self._stream.frames or None)
            self._packets = 0
            self._end_s: float | None = None
            self._decoded = self._decode()
            first = next(self._decoded, None)
            if first is None:
                raise _refusal(name, "no frame of it can be decoded", "check that it plays, or make a new copy")
            self._first = first
            self.size_px = (first.image_rgb.shape[1], first.image_rgb.shape[0])
            on_failure.pop_all()

    def __iter__(self) -> Iterator[Frame]:
        for frame in chain([self._first], self._decoded):
            self._check_size(frame.image_rgb, f"{self.name}: frame {frame.index}")
            yield frame

    def close(self) -> None:
        self._container.close()

    def _decode(self) -> Iterator[Frame]:
        """Decode to the end, and count undecodable frames."""
        start_s: float | None = None
        time_s = -1 / self.fps
        for index, picture in enumerate(self._pictures()):
            stated_s = picture.time
            if start_s is None:
                start_s = stated_s or 0.0
            # Raw streams have no timestamps, and concatenated recordings jump back: the nominal rate continues.
            if stated_s is None or (index and stated_s - start_s < time_s + _SHORTEST_STEP_S):
                time_s += 1 / self.fps
                self.retimed_frames += 1
            else:
                time_s = stated_s - start_s
            yield Frame(_upright_rgb(picture), time_s, index)
        self.undecodable_frames += self._missing_at_end()

    def _pictures(self) -> Iterator[av.VideoFrame]:
        """Yield the pictures that can be decoded without damage."""
        try:
            for packet in self._container.demux(self._stream):
                self._note(packet)
                try:
                    pictures = packet.decode()
                except av.error.FFmpegError:
                    self.undecodable_frames += 1
                    continue
                for picture in pictures:
                    # Decoders conceal the lost parts of a damaged picture.
                    if picture.is_corrupt:
                        self.undecodable_frames += 1
                    elif isinstance(picture, av.VideoFrame):
                        yield picture
        except av.error.FFmpegError as error:
            why = f"reading failed after {self._packets} frames ({error.strerror})"
            raise VideoError(f"{self.name}: {why}; make a new copy") from error

    def _note(self, packet: av.Packet[av.VideoStream]) -> None:
        """Count the packets, and track their end time; the empty last packet only flushes the decoder."""
        if packet.size:
            self._packets += 1
        if packet.pts is not None:
            end_s = float((packet.pts + (packet.duration or 0)) * packet.time_base)
            self._end_s = end_s if self._end_s is None else max(self._end_s, end_s)

    def _missing_at_end(self) -> int:
        """Number of frames in the file's index that its data lacks, as in an interrupted copy or recording.

        An index may also list trimmed frames. Frames therefore count as missing only if the pictures end before the
        stated duration, and only as many as fit into the gap.
        """
        stream = self._stream
        if not stream.frames or stream.duration is None or stream.time_base is None or self._end_s is None:
            return 0
        stated_end_s = float(((stream.start_time or 0) + stream.duration) * stream.time_base)
        return max(0, min(stream.frames - self._packets, round((stated_end_s - self._end_s) * self.fps)))


class _ImageFolder(VideoSource):
    """Images of one size in order of their names, decoded as in the evaluation protocol: without EXIF orientation.

    A damaged image counts as an undecodable frame and leaves a gap in time.
    """

    def __init__(self, folder: Path, fps: float) -> None:
        name = relative_to_cwd(folder)
        self._paths = list_images(folder)
        if not self._paths:
            raise VideoError(f"{name}: holds no image; expected files {' '.join(IMAGE_SUFFIXES)}; give another --video")
        sizes_px: list[tuple[int, int]] = []
        damage: Exception | None = None
        for path in self._paths:
            try:
                with Image.open(path) as image:
                    sizes_px.append(image.size)
            except _DAMAGED_IMAGE as error:
                damage = damage or error
                continue
            if sizes_px[-1] != sizes_px[0]:
                raise VideoError(_size_message(relative_to_cwd(path), sizes_px[-1], sizes_px[0]))
        if not sizes_px:
            # Pillow's message for an unknown format contains the full path.
            why = "unknown format" if isinstance(damage, UnidentifiedImageError) else " ".join(str(damage).split())
            raise VideoError(f"{name}: none of its {len(self._paths)} images can be read ({why}); replace them")
        super().__init__(name, sizes_px[0], fps, len(self._paths))

    def __iter__(self) -> Iterator[Frame]:
        index = 0
        for place, path in enumerate(self._paths):
            try:
                with Image.open(path) as image:
                    image_rgb = np.asarray(image.convert("RGB"))
            except _DAMAGED_IMAGE:
                self.undecodable_frames += 1
                continue
            self._check_size(image_rgb, relative_to_cwd(path))
            yield Frame(image_rgb, place / self.fps, index)
            index += 1

    def close(self) -> None:
        """Images are closed one by one."""


class _Camera(VideoSource):
    """A camera, read by OpenCV; a frame's time is the time of its arrival."""

    is_live = True

    def __init__(self, index: int) -> None:
        name = f"camera {index}"
        # OpenCV would print its search for drivers in addition to the error message.
        cv2.setLogLevel(0)
        self._capture = cv2.VideoCapture(index)
        _, image_bgr = self._capture.read() if self._capture.isOpened() else (False, None)
        if image_bgr is None:
            self._capture.release()
            raise _refusal(name, "gives no picture", "check that it is connected and not in use")
        fps = self._capture.get(cv2.CAP_PROP_FPS)
        size_px = (image_bgr.shape[1], image_bgr.shape[0])
        super().__init__(name, size_px, fps if fps > 0 else _CAMERA_FALLBACK_FPS, None)

    def __iter__(self) -> Iterator[Frame]:
        start_s: float | None = None
        index = 0
        while True:
            read, image_bgr = self._capture.read()
            now_s = time.monotonic()
            if not read:
                raise VideoError(f"{self.name}: stopped after {index} frames; check its connection")
            start_s = now_s if start_s is None else start_s
            image_rgb: UInt8Array = cv2.cvtColor(image_bgr, cv2.COLOR_BGR2RGB)
            self._check_size(image_rgb, f"{self.name}: frame {index}")
            yield Frame(image_rgb, now_s - start_s, index)
            index += 1

    def close(self) -> None:
        self._capture.release()


def _upright_rgb(picture: av.VideoFrame) -> UInt8Array:
    """Convert to RGB and rotate upright by quarter turns."""
    image_rgb = np.asarray(picture.to_ndarray(format="rgb24"), np.uint8)
    quarter_turns = round(picture.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(image_rgb, quarter_turns))


def _size_message(what: str, got_px: tuple[int, int], expected_px: tuple[int, int]) -> str:
    got, expected = ("x".join(map(str, size_px)) for size_px in (got_px, expected_px))
    return f"{what}: got {got} pixels, expected {expected} as the first frame has; make all the same size"


def _refusal(name: str, got: str, next_step: str) -> VideoError:
    return VideoError(
        f"{name}: {got}; expected a video file, a folder of images or a camera index such as 0; {next_step}"
    )
