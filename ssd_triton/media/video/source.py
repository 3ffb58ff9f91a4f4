"""Reads frames with timestamps from a video file, an address, a folder of images or a camera."""

from __future__ import annotations

import re
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

from ssd_triton.common.arrays import UInt8Array
from ssd_triton.common.errors import ImageError, VideoError
from ssd_triton.common.files import printable_address, printable_name, relative_to_cwd
from ssd_triton.media.decoding import MAX_PIXELS, decode_rgb, image_size_px
from ssd_triton.media.images import HEAD_BYTES, image_format, list_images, read_image
from ssd_triton.media.video.upright import Upright, pixel_aspect, upright_size_px

_ADDRESS = re.compile(r"(https?|rtsps?)://", re.IGNORECASE)
"""Addresses that FFmpeg reads over a network."""
_NETWORK_TIMEOUT_S = (10.0, 10.0)
"""Longest wait for a connection, and for the next data."""

_FALLBACK_FPS = 25.0
"""Nominal rate of a file without one (raw H.264): PAL's, and FFmpeg's own default."""

_CAMERA_FALLBACK_FPS = 30.0
"""Nominal rate of a camera whose driver reports none: the usual rate of USB cameras."""

_MOST_CAMERA_DIGITS = 9
"""Keeps the index within OpenCV's 32 bits."""

_SHORTEST_STEP_S = 1 / 90_000
"""A tick of MPEG's 90 kHz clock: frames closer together would get the same time in a video file."""


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
    """Frames of one size with square pixels, in order of presentation; a context manager that is iterated once.

    Attributes:
        name: Name of the source, for messages.
        size_px: Width and height of every frame, in pixels.
        fps: Nominal frames per second; the frames' own timestamps can differ.
        frame_count: Number of frames that the file states; None if unknown, as for a camera.
        is_live: Whether frames arrive in real time, as from a camera.
        undecodable_frames: Frames skipped so far because they could not be decoded without damage.
        retimed_frames: Frames so far whose timestamp was missing or did not rise; they follow at the nominal rate.
        skipped: Name and reason for each other entry of a folder of images.
    """

    is_live = False

    def __init__(self, name: str, size_px: tuple[int, int], fps: float, frame_count: int | None) -> None:
        self.name = name
        self.size_px = size_px
        self.fps = fps
        self.frame_count = frame_count
        self.undecodable_frames = 0
        self.retimed_frames = 0
        self.skipped: tuple[str, ...] = ()

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


def is_address(spec: str) -> bool:
    """Whether a text is an address that :func:`open_source` reads over a network."""
    return _ADDRESS.match(spec) is not None


def open_source(spec: str, *, image_folder_fps: float) -> VideoSource:
    """Open a video file, an address, a folder of images, an image, or a camera.

    Opening decodes the first frame of a video, or reads the header of every image in a folder, so that most errors
    appear before slow work begins.

    Args:
        spec: A path, an http(s) or rtsp(s) address, or the index of a camera in decimal digits (``./0`` is a file of
            that name).
        image_folder_fps: Frames per second of a folder of images, above 0.

    Raises:
        VideoError: ``spec`` is none of these, or cannot be read.
    """
    if spec.isdecimal():
        if len(spec) > _MOST_CAMERA_DIGITS:
            raise _refusal(f"camera {spec[:20]}", "there is no such camera", "give a lower index")
        return _Camera(int(spec))
    if is_address(spec):
        return _VideoFile(spec, printable_address(spec), timeout=_NETWORK_TIMEOUT_S)
    if "://" in spec:
        raise _refusal(printable_name(spec), "an address of another kind", "download it first")
    path = Path(spec)
    name = relative_to_cwd(path)
    try:
        if path.is_dir():
            return _folder_source(path, image_folder_fps)
        if not path.exists():
            raise _refusal(name, "no such file", "give another video")
        if _is_still(path):
            return _ImageSeries(name, (path,), image_folder_fps)
    except OSError as error:
        raise _refusal(name, f"cannot be read ({error.strerror})", "check its name and permissions") from error
    # With FFmpeg's file scheme, since it would take a name such as 12:30.mp4 for an address.
    return _VideoFile(f"file:{path}", name)


class _VideoFile(VideoSource):
    """A video file or a network stream, read by FFmpeg's libraries.

    Of several video streams the best one is read, which a cover picture never is. The display matrix (rotation, as
    phones store it) and the pixel aspect ratio are applied.
    """

    def __init__(self, url: str, name: str, timeout: tuple[float, float] | None = None) -> None:
        try:
            # Broken metadata, such as titles in another encoding, must not prevent decoding.
            self._container = av.open(url, metadata_errors="replace", timeout=timeout)
        except (av.error.FFmpegError, OSError) as error:
            why = f"cannot be read as a video ({error.strerror})"
            raise _refusal(name, why, "check that it plays, or give another video") from error
        with ExitStack() as on_failure:
            on_failure.callback(self._container.close)
            if self._is_image():
                raise _refusal(name, "one image", "give a video, or download the image and give the file")
            self._stream = self._best_stream(name)
            self._aspect = pixel_aspect(self._stream)
            size_px = upright_size_px(self._stream.width, self._stream.height, self._aspect)
            if not 0 < size_px[0] * size_px[1] <= MAX_PIXELS:
                got = f"pictures of {size_px[0]}x{size_px[1]} square pixels (each pixel has aspect {self._aspect})"
                raise _refusal(name, f"{got}, at most {MAX_PIXELS} are read", "make a smaller copy")
            self.is_live = url.lower().startswith("rtsp")
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

    def _is_image(self) -> bool:
        """Whether FFmpeg has opened an image: it reads images as videos of one frame, and only one tile of a HEIC."""
        brand = self._container.metadata.get("major_brand", "")
        return self._container.format.name.endswith("_pipe") or image_format(f"....ftyp{brand}".encode()) is not None

    def _best_stream(self, name: str) -> av.VideoStream:
        stream = self._container.streams.best("video")
        if not isinstance(stream, av.VideoStream) or stream.disposition & av.stream.Disposition.attached_pic:
            raise _refusal(name, "holds no video stream", "give another video")
        return stream

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
        upright = Upright(self._aspect)
        for index, picture in enumerate(self._pictures()):
            stated_s = picture.time
            if start_s is None:
                start_s = stated_s or 0.0
            # Raw streams have no timestamps, and joined recordings jump back: such frames follow at the nominal rate.
            if stated_s is None or (index and stated_s - start_s < time_s + _SHORTEST_STEP_S):
                time_s += 1 / self.fps
                self.retimed_frames += 1
            else:
                time_s = stated_s - start_s
            yield Frame(upright.rgb(picture), time_s, index)
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
                    # Decoders fill in the lost parts of a damaged picture, and mark it.
                    if picture.is_corrupt:
                        self.undecodable_frames += 1
                    elif isinstance(picture, av.VideoFrame):
                        yield picture
        except av.error.FFmpegError as error:
            why = f"reading failed after {self._packets} frames ({error.strerror})"
            raise VideoError(f"{self.name}: {why}; make a new copy") from error

    def _note(self, packet: av.Packet[av.VideoStream]) -> None:
        """Count the packets and track their end time; the empty last packet only flushes the decoder."""
        if packet.size:
            self._packets += 1
        if packet.pts is not None:
            end_s = float((packet.pts + (packet.duration or 0)) * packet.time_base)
            self._end_s = end_s if self._end_s is None else max(self._end_s, end_s)

    def _missing_at_end(self) -> int:
        """Return how many frames of the file's index its data lacks, as in an interrupted copy or recording.

        An index may also list trimmed frames. Frames therefore count as missing only if the pictures end before the
        stated duration, and only as many as fit into the gap.
        """
        stream = self._stream
        if not stream.frames or stream.duration is None or stream.time_base is None or self._end_s is None:
            return 0
        stated_end_s = float(((stream.start_time or 0) + stream.duration) * stream.time_base)
        return max(0, min(stream.frames - self._packets, round((stated_end_s - self._end_s) * self.fps)))


def _folder_source(folder: Path, fps: float) -> VideoSource:
    found = list_images(folder)
    if not found.paths:
        raise VideoError(f"{found.nothing_found()}; give another video")
    found.warn_of_skipped()
    return _ImageSeries(relative_to_cwd(folder), found.paths, fps, found.skipped)


class _ImageSeries(VideoSource):
    """Images of one size, decoded as in the evaluation protocol, that is, without EXIF orientation.

    A damaged image counts as an undecodable frame and leaves a gap in time.
    """

    def __init__(self, name: str, paths: tuple[Path, ...], fps: float, skipped: tuple[str, ...] = ()) -> None:
        self._paths = paths
        sizes_px: list[tuple[int, int]] = []
        damage: ImageError | None = None
        for path in self._paths:
            file = relative_to_cwd(path)
            try:
                sizes_px.append(image_size_px(read_image(path), file))
            except ImageError as error:
                damage = damage or error
                continue
            if sizes_px[-1] != sizes_px[0]:
                raise VideoError(_size_message(file, sizes_px[-1], sizes_px[0]))
        if not sizes_px:
            raise VideoError(f"none of {len(self._paths)} images can be read; the first: {damage}") from damage
        super().__init__(name, sizes_px[0], fps, len(self._paths))
        self.skipped = skipped

    def __iter__(self) -> Iterator[Frame]:
        index = 0
        for place, path in enumerate(self._paths):
            try:
                image_rgb = decode_rgb(read_image(path))
            except ImageError:
                self.undecodable_frames += 1
                continue
            self._check_size(image_rgb, relative_to_cwd(path))
            yield Frame(image_rgb, place / self.fps, index)
            index += 1

    def close(self) -> None:
        """Do nothing: each image is closed after it was read."""


class _Camera(VideoSource):
    """A camera, read by OpenCV; a frame's time is the time of its arrival."""

    is_live = True

    def __init__(self, index: int) -> None:
        name = f"camera {index}"
        # Keeps OpenCV from printing its search for drivers beside the error message.
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


def _is_still(path: Path) -> bool:
    """Whether a file is an image by its content; a GIF may be an animation."""
    with path.open("rb") as file:
        return image_format(file.read(HEAD_BYTES)) not in (None, "GIF")


def _size_message(what: str, got_px: tuple[int, int], expected_px: tuple[int, int]) -> str:
    got, expected = ("x".join(map(str, size_px)) for size_px in (got_px, expected_px))
    return f"{what}: got {got} pixels, expected {expected} as the first frame has; make all the same size"


def _refusal(name: str, got: str, next_step: str) -> VideoError:
    expected = "a video file, an http(s) or rtsp address, a folder of images or a camera index such as 0"
    return VideoError(f"{name}: {got}; expected {expected}; {next_step}")
