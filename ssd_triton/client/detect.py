"""Detects objects in images and videos, and writes the results.

Drawing and video need Pillow, OpenCV and PyAV. They are not part of a client's installation, so they are imported where
they are used.
"""

from __future__ import annotations

import importlib
import itertools
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from ssd_triton.client.client import DetectorClient
from ssd_triton.client.errors import RequestRefusedError
from ssd_triton.client.results import NEED_SIZE, Result, Write, open_results, results_path
from ssd_triton.client.sources import ImageSource, Source, VideoSpec
from ssd_triton.common.arrays import UInt8Array
from ssd_triton.common.detections import Detections
from ssd_triton.common.errors import ImageError, UserError, VideoError
from ssd_triton.common.in_flight import submit_ahead
from ssd_triton.common.interrupts import interrupts_deferred
from ssd_triton.common.labels import counted
from ssd_triton.common.progress import note, progress
from ssd_triton.common.result_format import ResultFormat

if TYPE_CHECKING:
    from ssd_triton.media.video import VideoSource

_Item = TypeVar("_Item")
_INSTALL = "pip install 'ssd-triton[video]'"


@dataclass(frozen=True)
class DetectOptions:
    """Which detections are kept, and what is written.

    Attributes:
        output: The folder to write to.
        labels: Class names by id.
        score_thresh: Keeps detections with a higher score.
        class_ids: Keeps detections of these classes; None keeps all.
        format: Format of the results.
        pictures: Whether to write annotated pictures and videos.
        crops: Whether to write a picture of each detection.
    """

    output: Path
    labels: tuple[str, ...]
    score_thresh: float = 0.5
    class_ids: Collection[int] | None = None
    format: ResultFormat = "json"
    pictures: bool = True
    crops: bool = False

    def that_can_be_written(self) -> DetectOptions:
        """Return the options without pictures where Pillow or OpenCV is missing, and log one line about it.

        Raises:
            UserError: The format needs the size of each image, and Pillow, which reads it, is missing.
        """
        if all(map(find_spec, ("PIL", "cv2"))):
            return self
        if self.format in NEED_SIZE and find_spec("PIL") is None:
            raise UserError(f"format {self.format} needs the size of each image, and so Pillow: {_INSTALL}")
        if self.pictures or self.crops:
            note(f"no pictures: they need Pillow and OpenCV: {_INSTALL}")
        return replace(self, pictures=False, crops=False)


@dataclass
class DetectSummary:
    """The outcome of a run.

    Attributes:
        refused: Images and videos that could not be read or that the server refused.
        undecodable_frames: Frames of videos that were skipped because they could not be decoded.
        written: Files and folders that were written.
    """

    refused: int = 0
    undecodable_frames: int = 0
    written: list[Path] = field(default_factory=list)


def detect(client: DetectorClient, sources: Sequence[Source], options: DetectOptions) -> DetectSummary:
    """Detect in images and videos, and write results and, if chosen, annotated pictures.

    A line on stderr sums up each image and video. Images are sent unchanged, several at once; formats that only the
    client decodes (HEIC, AVIF, JPEG 2000) are sent as PNG. EXIF is not applied: boxes and pictures are in the stored
    pixels. A refused image or video is listed and does not stop the others. Ctrl-C ends a camera or a live stream; the
    results up to then are kept.

    Args:
        client: A connected client.
        sources: From :func:`ssd_triton.client.sources.find_sources`.
        options: Which detections to keep, and what to write.

    Raises:
        VideoError: The only source is a video, and it cannot be read.
        ClientError: The server fails for a reason other than an input.
        UserError: The format of the results needs Pillow, which is not installed.
        ModuleNotFoundError: A source is a video, and PyAV or OpenCV is not installed.
    """
    if any(isinstance(source, VideoSpec) for source in sources):
        importlib.import_module("ssd_triton.media.video")  # a missing package shows before any work is done
    options = options.that_can_be_written()
    with open_results(options.output, options.format, options.labels) as write:
        run = _DetectRun(client, options, write, fails_early=len(sources) == 1)
        for is_image, group in itertools.groupby(sources, lambda source: isinstance(source, ImageSource)):
            if is_image:
                run.detect_images([source for source in group if isinstance(source, ImageSource)])
            else:
                for video in group:
                    if isinstance(video, VideoSpec):
                        run.detect_video(video)
    if (options.output / "crops").is_dir() and options.crops:
        run.summary.written.append(options.output / "crops")
    run.summary.written.append(results_path(options.output, options.format))
    return run.summary


class _Stopwatch:
    """The latency of a request, from its start to its answer."""

    def __init__(self) -> None:
        self._start_s = self._end_s = 0.0

    def watch(self, future: Future[Detections]) -> Future[Detections]:
        """Start timing a request that has just been submitted, and return its future."""
        self._start_s = time.perf_counter()
        future.add_done_callback(self._stop)
        return future

    def _stop(self, _: Future[Detections]) -> None:
        self._end_s = time.perf_counter()

    @property
    def latency_ms(self) -> float:
        # A future is done just before it calls back: the end may not be recorded yet.
        return ((self._end_s or time.perf_counter()) - self._start_s) * 1000


@dataclass(frozen=True)
class _ImageRead:
    """An image with its content in a form that the server takes, or the reason why it could not be read."""

    source: ImageSource
    encoded: bytes = b""
    error: ImageError | None = None


def _read(source: ImageSource) -> _ImageRead:
    try:
        return _ImageRead(source, source.read())
    except ImageError as error:
        return _ImageRead(source, error=error)


class _DetectRun:
    """Detects in one source after another, and writes the results of each."""

    def __init__(self, client: DetectorClient, options: DetectOptions, write: Write, *, fails_early: bool) -> None:
        self._client = client
        self._options = options
        self._write = write
        self._fails_early = fails_early
        self.summary = DetectSummary()

    def detect_images(self, sources: Sequence[ImageSource]) -> None:
        """Detect in images, several in flight."""
        answers = self._answers(map(_read, sources), self._submit)
        for image, future, watch in progress(answers, total=len(sources), description="detect", unit="images"):
            source = image.source
            try:
                found = self._kept(future)
                names = Counter(found.class_names)
                result = self._with_pictures(Result(source.file, source.stem, found), image.encoded, source.name)
            except (RequestRefusedError, ImageError) as error:
                self._refuse(source.file, source.stem, source.name, error)
                continue
            self._write(result)
            what = counted(names) or "nothing found"
            note(f"{source.name}: {what}, {watch.latency_ms:.0f} ms")

    def detect_video(self, video: VideoSpec) -> None:
        """Detect in the frames of a video, several in flight; Ctrl-C ends a live one."""
        from ssd_triton.media.video import open_source

        with ExitStack() as stack:
            try:
                source = stack.enter_context(open_source(video.spec, image_folder_fps=1))
            except VideoError as error:
                if self._fails_early:
                    raise
                self._refuse(video.file, video.stem, video.name, error)
                return
            if source.is_live:
                stack.enter_context(suppress(KeyboardInterrupt))
            try:
                self._detect_frames(source, video)
            except VideoError as error:  # a camera was unplugged or a stream ended: results up to then are kept
                self._refuse(video.file, video.stem, video.name, error)

    def _detect_frames(self, source: VideoSource, video: VideoSpec) -> None:
        from ssd_triton.media.drawing import draw_detections
        from ssd_triton.media.video import VideoWriter

        options = self._options
        frames_with: Counter[str] = Counter()
        frames, start_s = 0, time.perf_counter()
        target = self._annotated_video(video)
        with ExitStack() as stack:
            stack.callback(lambda: self._sum_up(source, video, frames, frames_with, time.perf_counter() - start_s))
            writer = stack.enter_context(VideoWriter(target, source.size_px, source.fps)) if options.pictures else None
            answers = submit_ahead(source, lambda frame: self._client.submit_frame(frame.image_rgb), self._in_flight)
            for frame, future in progress(answers, total=source.frame_count, description="detect", unit="frames"):
                found = self._kept(future)
                names = set(found.class_names)
                stem = f"{video.stem}_{frame.index:06d}"
                with interrupts_deferred():
                    self._write(Result(video.file, stem, found, source.size_px, frame.index, frame.time_s))
                    if writer is not None:
                        writer.write(draw_detections(frame.image_rgb, found, options.labels), frame.time_s)
                    self._write_crops(stem, frame.image_rgb, found)
                    frames += 1
                    frames_with.update(names)

    def _annotated_video(self, video: VideoSpec) -> Path:
        return self._options.output / f"{video.stem}.annotated.mp4"

    def _sum_up(
        self, source: VideoSource, video: VideoSpec, frames: int, frames_with: Counter[str], elapsed_s: float
    ) -> None:
        """Print the summary line of a video, however it ended."""
        self.summary.undecodable_frames += source.undecodable_frames
        if self._options.pictures and frames:
            self.summary.written.append(self._annotated_video(video))
        what = ", ".join(f"{name} in {count}" for name, count in frames_with.most_common()) or "nothing found"
        note(f"{video.name}: {frames} frames: {what}, {frames / max(elapsed_s, 1e-9):.1f} frames/s")
        if source.undecodable_frames:
            note(f"{video.name}: undecodable frames: {source.undecodable_frames}, skipped")

    def _answers(
        self, items: Iterator[_Item], submit: Callable[[_Item], Future[Detections]]
    ) -> Iterator[tuple[_Item, Future[Detections], _Stopwatch]]:
        watched = ((item, _Stopwatch()) for item in items)
        for (item, watch), future in submit_ahead(watched, lambda one: one[1].watch(submit(one[0])), self._in_flight):
            yield item, future, watch

    @property
    def _in_flight(self) -> int:
        return self._client.in_flight

    def _submit(self, image: _ImageRead) -> Future[Detections]:
        """Start detecting in an image; for one that could not be read, the future raises the reason."""
        if image.error is None:
            return self._client.submit(image.encoded)
        refused: Future[Detections] = Future()
        refused.set_exception(image.error)
        return refused

    def _kept(self, future: Future[Detections]) -> Detections:
        """Wait for an answer, and return the detections that the options keep."""
        options = self._options
        found = future.result().with_labels(options.labels)
        return found.filter(score_thresh=options.score_thresh, class_ids=options.class_ids)

    def _with_pictures(self, result: Result, encoded: bytes, name: str) -> Result:
        """Write the pictures of an image, and return its result with the name of the picture and the image's size."""
        options, found = self._options, result.detections
        if found is None or not (options.pictures or options.crops or options.format in NEED_SIZE):
            return result
        from ssd_triton.media.decoding import decode_rgb, image_size_px

        if not (options.pictures or options.crops):
            return replace(result, size_px=image_size_px(encoded, name))
        image_rgb = decode_rgb(encoded, name)
        result = replace(result, size_px=(image_rgb.shape[1], image_rgb.shape[0]))
        self._write_crops(result.stem, image_rgb, found)
        if not options.pictures:
            return result
        from ssd_triton.media.pictures import write_annotated

        picture = options.output / f"{result.stem}.annotated.jpg"
        write_annotated(picture, image_rgb, found, options.labels)
        self.summary.written.append(picture)
        return replace(result, annotated=f"{result.stem}.annotated.jpg")

    def _write_crops(self, stem: str, image_rgb: UInt8Array, found: Detections) -> None:
        if self._options.crops:
            from ssd_triton.media.pictures import write_crops

            write_crops(self._options.output / "crops", stem, image_rgb, found)

    def _refuse(self, file: str, stem: str, name: str, error: UserError) -> None:
        """List an image or a video as refused; its name is not repeated where the error message begins with it."""
        reason = str(error).removeprefix(f"{name}: ")
        self._write(Result(file, stem, error=reason))
        self.summary.refused += 1
        note(f"refused: {name}: {reason}")
