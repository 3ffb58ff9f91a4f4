"""Detecting objects in files, and writing what was found.

Drawing and video need Pillow, OpenCV and PyAV, which are no part of a client's installation: they are imported where
they are used.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from ssd_triton.client.client import DetectorClient
from ssd_triton.client.errors import RequestRefusedError
from ssd_triton.common.errors import ImageError, UserError
from ssd_triton.common.files import atomic_output, printable_name, relative_to_cwd
from ssd_triton.common.in_flight import submit_ahead
from ssd_triton.common.progress import progress
from ssd_triton.media import images


@dataclass
class DetectSummary:
    """The results of a run.

    Attributes:
        results: The content of ``detections.json``.
        refused: A line for each file that could not be read or that the server refused, with its reason.
        written: The files that were written.
        undecodable_frames: Frames of a video that were skipped because they could not be decoded.
    """

    results: list[dict[str, object]] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    written: list[Path] = field(default_factory=list)
    undecodable_frames: int = 0

    def refuse(self, path: Path, error: UserError) -> None:
        """List a file as refused."""
        name = relative_to_cwd(path)
        reason = str(error).removeprefix(f"{name}: ")
        self.refused.append(f"{name}: {reason}")
        self.results.append({"file": str(path), "error": reason})


def is_video(inputs: Sequence[str]) -> bool:
    """Whether the inputs are a single address, or a single file that is no image by its content."""
    if len(inputs) != 1:
        return False
    return "://" in inputs[0] or (Path(inputs[0]).is_file() and not images.is_image(Path(inputs[0])))


def list_images(inputs: Sequence[str]) -> list[Path]:
    """The given files, with each folder replaced by its images in the order of their names.

    What a folder holds beside images is logged.

    Raises:
        UserError: A path does not exist, a folder holds no images, or an input is an address.
    """
    files: list[Path] = []
    for given in inputs:
        path = Path(given)
        if path.is_dir():
            found = images.list_images(path)
            if not found.paths:
                raise UserError(f"{found.nothing_found()}; give another folder")
            found.warn_of_skipped()
            files += found.paths
        elif path.is_file():
            files.append(path)
        elif "://" in given:
            raise UserError(
                f"{printable_name(given)}: got an address among several inputs, expected it alone: it is read as a "
                "video (http, https, rtsp); download images first"
            )
        else:
            raise UserError(f"not found: {relative_to_cwd(path)}; give images, folders of images, or one video")
    return files


def detect_images(
    client: DetectorClient, files: list[Path], output: Path, labels: tuple[str, ...], score_thresh: float
) -> DetectSummary:
    """Detect in images, and write ``detections.json`` and an annotated JPEG for each.

    Files are sent as they are, several at once; what only this side decodes (HEIC, AVIF, JPEG 2000) as PNG. EXIF is not
    applied: boxes and pictures are those of the stored pixels. A refused file is listed and does not stop the others.

    Args:
        client: A connected client.
        files: Images.
        output: The folder to write to.
        labels: Class names by id.
        score_thresh: Keeps detections with a higher score.

    Raises:
        ClientError: The server fails for another reason than an input.
    """
    from PIL import Image

    from ssd_triton.media.decoding import decode_rgb
    from ssd_triton.media.drawing import draw_detections

    summary = DetectSummary()
    taken: set[str] = set()
    readable = _readable(files, summary)
    answers = submit_ahead(readable, lambda one: client.submit(one[1]), client.in_flight)
    for (path, encoded), future in progress(answers, total=len(files), description="detect", unit="images"):
        try:
            found = future.result().filter(score_thresh=score_thresh)
            image_rgb = decode_rgb(encoded, relative_to_cwd(path))
        except (RequestRefusedError, ImageError) as error:
            summary.refuse(path, error)
            continue
        picture = output / _unused_name(path.stem, taken)
        with atomic_output(picture) as temporary:
            Image.fromarray(draw_detections(image_rgb, found, labels)).save(temporary, "JPEG", quality=92)
        summary.written.append(picture)
        summary.results.append({"file": str(path), "annotated": picture.name, "detections": found.to_json(labels)})
    _write_json(summary, output)
    return summary


def _readable(files: Iterable[Path], summary: DetectSummary) -> Iterator[tuple[Path, bytes]]:
    """Each file with its content as the server takes it; those that cannot be read are listed as refused."""
    for path in files:
        try:
            yield path, images.read_served(path)
        except ImageError as error:
            summary.refuse(path, error)


def _unused_name(stem: str, taken: set[str]) -> str:
    """The name of an annotated picture that no other input has; disks may ignore case."""
    numbers = itertools.chain([""], map(".{}".format, itertools.count(2)))
    name = next(name for number in numbers if (name := f"{stem}{number}.annotated.jpg").casefold() not in taken)
    taken.add(name.casefold())
    return name


def detect_video(
    client: DetectorClient, spec: str, output: Path, labels: tuple[str, ...], score_thresh: float
) -> DetectSummary:
    """Detect in a video, and write ``detections.json`` and an annotated MP4.

    Args:
        client: A connected client.
        spec: A video file, or its address.
        output: The folder to write to.
        labels: Class names by id.
        score_thresh: Keeps detections with a higher score.

    Raises:
        VideoError: The file cannot be read as a video.
        ClientError: The server fails.
    """
    from ssd_triton.media.drawing import draw_detections
    from ssd_triton.media.video import VideoWriter, open_source

    summary = DetectSummary()
    # A file called 0 is no camera.
    source_spec = spec if "://" in spec else str(Path(spec).absolute())
    with ExitStack() as stack:
        source = stack.enter_context(open_source(source_spec, image_folder_fps=1))
        target = output / f"{_stem(spec)}.annotated.mp4"
        writer = stack.enter_context(VideoWriter(target, source.size_px, source.fps))
        answers = submit_ahead(source, lambda frame: client.submit_frame(frame.image_rgb), client.in_flight)
        for frame, future in progress(answers, total=source.frame_count, description="detect", unit="frames"):
            found = future.result().filter(score_thresh=score_thresh)
            summary.results.append(
                {"frame": frame.index, "time_s": round(frame.time_s, 6), "detections": found.to_json(labels)}
            )
            writer.write(draw_detections(frame.image_rgb, found, labels), frame.time_s)
        summary.undecodable_frames = source.undecodable_frames
    summary.written.append(target)
    _write_json(summary, output)
    return summary


def _stem(spec: str) -> str:
    """A name for what is made of a video: that of its file or of the last part of its address."""
    return Path(urlsplit(spec).path if "://" in spec else spec).stem or "stream"


def _write_json(summary: DetectSummary, output: Path) -> None:
    path = output / "detections.json"
    with atomic_output(path) as temporary:
        temporary.write_text(json.dumps(summary.results, indent=1) + "\n", encoding="utf-8")
    summary.written.append(path)
