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
"""Nominal rate of a file that states none (raw H.264): PAL's, and FFmpeg's own choice for such files."""

_CAMERA_FALLBACK_FPS = 30.0
"""Nominal rate of a camera whose driver states none: the usual rate of USB cameras."""

_SHORTEST_STEP_S = 1 / 90_000
"""Frames nearer to one another than a tick of MPEG's 90 kHz clock have the same time as far as a video file can say."""


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture.

    Attributes:
        image_rgb: UINT8 [H, W, 3], RGB, upright, contiguous; it may be read-only.
        time_s: Presentation time in seconds; the first frame is at 0 and every later one is later.
        index: 0, 1, 2, … over the frames that were yielded.
    """

    image_rgb: UInt8Array
    time_s: float
    index: int


class VideoSource(ABC):
    """Frames of one size, in order of presentation; a context manager, to be iterated once.

    Attributes:
        name: What it was opened from, for messages.
        size_px: Width and height of every frame, in pixels.
        fps: Nominal frames a second; timestamps, not this, say when a frame is shown.
        frame_count: Frames that the source states it has; None where it states nothing, as for a camera.
        is_live: Whether frames come when they are taken, as from a camera, and not as fast as they are read.
        undecodable_frames: Frames skipped so far because they could not be decoded, or only with damage.
        retimed_frames: Frames so far whose stated time was missing or not later than the frame before, so that the
            nominal rate went on instead.
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
        """Let go of the file or the camera."""

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

    Files and folders are checked as far as possible here, so that a mistake shows before anything slow
    begins: the first frame of a video is decoded, and the header of every image in a folder is read.

    Args:
        spec: A path, or the index of a camera in decimal digits (``./0`` is a file of that name).
        image_folder_fps: Frames a second of a folder of images, above 0.

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
    """A video file, through FFmpeg's libraries; a rotation noted beside the pictures (phones) is applied."""

    def __init__(self, path: Path) -> None:
        name = relative_to_cwd(path)
        try:
            # Broken metadata (titles in another encoding) are no reason to refuse the pictures.
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
        """Decode to the end, counting what cannot be decoded."""
        start_s: float | None = None
        time_s = -1 / self.fps
        for index, picture in enumerate(self._pictures()):
            stated_s = picture.time
            if start_s is None:
                start_s = stated_s or 0.0
            # Raw streams have no timestamps, and joined recordings jump back: then the nominal rate goes on.
            if stated_s is None or (index and stated_s - start_s < time_s + _SHORTEST_STEP_S):
                time_s += 1 / self.fps
                self.retimed_frames += 1
            else:
                time_s = stated_s - start_s
            yield Frame(_upright_rgb(picture), time_s, index)
        self.undecodable_frames += self._missing_at_end()

    def _pictures(self) -> Iterator[av.VideoFrame]:
        """Yield the pictures that decode without damage."""
        try:
            for packet in self._container.demux(self._stream):
                self._note(packet)
                try:
                    pictures = packet.decode()
                except av.error.FFmpegError:
                    self.undecodable_frames += 1
                    continue
                for picture in pictures:
                    # A decoder that lost part of a picture paints something plausible over it.
                    if picture.is_corrupt:
                        self.undecodable_frames += 1
                    elif isinstance(picture, av.VideoFrame):
                        yield picture
        except av.error.FFmpegError as error:
            why = f"reading failed after {self._packets} frames ({error.strerror})"
            raise VideoError(f"{self.name}: {why}; make a new copy") from error

    def _note(self, packet: av.Packet[av.VideoStream]) -> None:
        """Keep count of the packets and of how far they reach; the empty one at the end only flushes."""
        if packet.size:
            self._packets += 1
        if packet.pts is not None:
            end_s = float((packet.pts + (packet.duration or 0)) * packet.time_base)
            self._end_s = end_s if self._end_s is None else max(self._end_s, end_s)

    def _missing_at_end(self) -> int:
        """Frames that the file's index promises and its data lacks: a copy or a recording that was cut off.

        An index may also list frames that the author trimmed away, so frames count as missing only when the
        pictures end before the stated duration, and no more of them than fit into the gap.
        """
        stream = self._stream
        if not stream.frames or stream.duration is None or stream.time_base is None or self._end_s is None:
            return 0
        stated_end_s = float(((stream.start_time or 0) + stream.duration) * stream.time_base)
        return max(0, min(stream.frames - self._packets, round((stated_end_s - self._end_s) * self.fps)))


class _ImageFolder(VideoSource):
    """Images of one size in order of their names, decoded as the evaluation protocol does.

    A damaged image is a frame that cannot be decoded: its time passes without it. EXIF orientation is not applied.
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
            # Pillow's text for an unknown format repeats the path in full.
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
    """A camera, through OpenCV; a frame's time is that of its arrival."""

    is_live = True

    def __init__(self, index: int) -> None:
        name = f"camera {index}"
        # OpenCV would print its search through drivers beside our one line.
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
    """Convert to RGB and turn upright, by quarter turns."""
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
