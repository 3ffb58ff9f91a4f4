"""Writes H.264 video files that keep the timestamp of every frame."""

from __future__ import annotations

import os
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import av.error
import cv2
import numpy as np
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc

from ssd_triton.common.arrays import UInt8Array
from ssd_triton.common.errors import VideoError
from ssd_triton.common.files import atomic_output, relative_to_cwd
from ssd_triton.common.interrupts import interrupts_deferred

TIME_BASE = Fraction(1, 90_000)
"""Unit of the written timestamps, seconds: MPEG's 90 kHz clock, in which the duration of a frame is a whole number of
ticks at 24, 25, 30, 60 and 30,000/1,001 frames a second."""

_X264_CRF = "20"
"""A constant quality slightly better than x264's default (23), which keeps text and thin lines clean."""

_TO_YUV = np.array(
    [
        [0.2126 * 219 / 255, 0.7152 * 219 / 255, 0.0722 * 219 / 255, 16.0],
        [-0.2126 / 1.8556 * 224 / 255, -0.7152 / 1.8556 * 224 / 255, 0.5 * 224 / 255, 128.0],
        [0.5 * 224 / 255, -0.7152 / 1.5748 * 224 / 255, -0.0722 / 1.5748 * 224 / 255, 128.0],
    ]
)
"""Matrix from RGB to 8-bit Y'CbCr of ITU-R BT.709 (parts 3 and 4), FP64 [3, 4]. OpenCV has only BT.601, and FFmpeg's
conversion takes three times as long."""


class VideoWriter:
    """Writes an MP4 file (H.264, yuv420p, BT.709) with its index in front, so that it plays while it loads.

    The file appears under its name when the block ends. This holds after an exception or Ctrl-C too: the file then has
    every frame that was written up to then. Without a single frame, no file appears and an older one stays. An
    interrupt is deferred while a frame is written and while the file is finished. Pictures of odd width or height get
    one more column or row, since yuv420p needs even sides.

    Args:
        path: Path of the file, ending in ``.mp4``; missing folders are created.
        size_px: Width and height of every picture, in pixels.
        fps: Nominal frames a second, for the encoder's rate control and the duration of the last frame.
        preset: Preset of x264. The default leaves most of the processor to the detector; slower presets make smaller
            files, faster presets larger ones.

    Raises:
        VideoError: The file cannot be created at ``path`` or, later, cannot be written.
    """

    def __init__(self, path: Path, size_px: tuple[int, int], fps: float, preset: str = "veryfast") -> None:
        self.path = path
        self._name = relative_to_cwd(path)
        self._size_px = size_px
        self._options = {"crf": _X264_CRF, "preset": preset}
        self._rate = Fraction(fps).limit_denominator(1001)
        self._files = ExitStack()
        self._container: av.container.OutputContainer | None = None
        self._last_tick = -1

        self._check_path()

    def __enter__(self) -> VideoWriter:
        return self

    def _check_path(self) -> None:
        """Refuse a path that cannot be written, before any work is done."""
        if self.path.suffix.lower() != ".mp4" or self.path.is_dir():
            raise self._failure("expected the name of a file, ending in .mp4")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._failure(error.strerror) from error
        if not os.access(self.path.parent, os.W_OK):
            raise self._failure("the folder is read-only")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with interrupts_deferred():
            if self._container is None or self._last_tick < 0:
                self._files.__exit__(kind, error, trace)
                return
            # The stack does not see the error, so that the file gets its name whatever ended the block.
            with self._files:
                self._finish(self._container)

    def write(self, image_rgb: UInt8Array, time_s: float) -> None:
        """Append one picture.

        Args:
            image_rgb: UINT8 [H, W, 3], RGB, of the size given at the start.
            time_s: Presentation time in seconds, from 0; at least 1/90,000 s later than that of the previous picture.

        Raises:
            ValueError: The picture has another shape or dtype, or the time does not advance.
            VideoError: The file cannot be written.
        """
        width_px, height_px = self._size_px
        if image_rgb.shape != (height_px, width_px, 3) or image_rgb.dtype != np.uint8:
            got, expected = f"{image_rgb.dtype} {list(image_rgb.shape)}", f"uint8 {[height_px, width_px, 3]}"
            raise ValueError(f"image_rgb: got {got}, expected {expected}")
        tick = round(time_s / TIME_BASE)
        if tick <= self._last_tick:
            last_s = float(self._last_tick * TIME_BASE)
            raise ValueError(f"time_s: got {time_s:.6f}, expected more than {last_s:.6f}")
        # An interrupt between encoder and file would lose a packet, and every frame that refers to it.
        with interrupts_deferred():
            try:
                if self._container is None:
                    self._container = self._start()
                self._encode(self._container, image_rgb, tick)
            except (av.error.FFmpegError, OSError) as error:
                raise self._failure(error.strerror) from error
            self._last_tick = tick

    def _start(self) -> av.container.OutputContainer:
        """Open the temporary file, only when the first picture arrives, so that without one nothing is left behind."""
        temporary = self._files.enter_context(atomic_output(self.path))
        container = av.open(f"file:{temporary}", "w", format="mp4", options={"movflags": "+faststart"})
        stream = container.add_stream("libx264", rate=self._rate, options=self._options)
        stream.width, stream.height = (side + side % 2 for side in self._size_px)
        stream.pix_fmt = "yuv420p"
        stream.sample_aspect_ratio = Fraction(1)
        codec = stream.codec_context
        codec.time_base = TIME_BASE
        # B-frames are stored out of order, which distorts the durations of frames with irregular timestamps.
        codec.max_b_frames = 0
        codec.colorspace, codec.color_range = Colorspace.ITU709, ColorRange.MPEG
        codec.color_primaries, codec.color_trc = ColorPrimaries.BT709, ColorTrc.BT709
        return container

    def _encode(self, container: av.container.OutputContainer, image_rgb: UInt8Array, tick: int) -> None:
        width_px, height_px = self._size_px
        odd_px = (0, height_px % 2, 0, width_px % 2)
        padded: UInt8Array = cv2.copyMakeBorder(image_rgb, *odd_px, cv2.BORDER_REPLICATE)
        picture = av.VideoFrame.from_ndarray(_to_yuv420(padded), format="yuv420p")
        picture.colorspace, picture.color_range = Colorspace.ITU709, ColorRange.MPEG
        picture.pts, picture.time_base = tick, TIME_BASE
        for packet in container.streams.video[0].encode(picture):
            container.mux(packet)

    def _finish(self, container: av.container.OutputContainer) -> None:
        """Write the pictures that the encoder still holds, and the index."""
        try:
            container.mux(container.streams.video[0].encode(None))
            container.close()
        except (av.error.FFmpegError, OSError) as error:
            raise self._failure(error.strerror) from error

    def _failure(self, why: str | None) -> VideoError:
        return VideoError(f"{self._name}: cannot be written ({why}); give another --output")


def _to_yuv420(image_rgb: UInt8Array) -> UInt8Array:
    """Convert RGB of even width and height to YUV 4:2:0 planes, UINT8 [H * 3 / 2, W]."""
    luma, blue, red = cv2.split(cv2.transform(image_rgb, _TO_YUV))
    height, width = luma.shape
    planes = np.empty(height * width * 3 // 2, np.uint8)
    planes[: height * width] = luma.ravel()
    for chroma, part in zip((blue, red), np.split(planes[height * width :], 2), strict=True):
        part[:] = cv2.resize(chroma, (width // 2, height // 2), interpolation=cv2.INTER_AREA).ravel()
    return planes.reshape(height * 3 // 2, width)
