"""Detecting objects in files, and writing what was found.

Drawing and video need Pillow, OpenCV and PyAV, which are no part of a client's installation: they are imported where
they are used.
"""

from __future__ import annotations

import collections
import io
import json
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ssd_triton.client.client import DetectorClient
from ssd_triton.client.errors import RequestRefusedError
from ssd_triton.common.errors import UserError
from ssd_triton.common.files import atomic_output, relative_to_cwd
from ssd_triton.common.in_flight import submit_ahead
from ssd_triton.common.progress import progress
from ssd_triton.media import images


@dataclass
class DetectSummary:
    """The results of a run.

    Attributes:
        results: The content of ``detections.json``.
        refused: A line for each file that the server refused, with its reason.
        written: The files that were written.
        undecodable_frames: Frames of a video that were skipped because they could not be decoded.
    """

    results: list[dict[str, object]] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    written: list[Path] = field(default_factory=list)
    undecodable_frames: int = 0


def is_video(inputs: list[Path]) -> bool:
    """Whether the inputs are a single file that is not an image."""
    return len(inputs) == 1 and inputs[0].is_file() and not images.is_image(inputs[0])


def list_images(inputs: list[Path]) -> list[Path]:
    """The given files, with each folder replaced by its images in the order of their names.

    Raises:
        UserError: A path does not exist, or a folder holds no images.
    """
    files: list[Path] = []
    for path in inputs:
        if path.is_dir():
            found = images.list_images(path)
            if not found:
                raise UserError(f"no images in {relative_to_cwd(path)}: expected {', '.join(images.IMAGE_SUFFIXES)}")
            files += found
        elif path.is_file():
            files.append(path)
        else:
            raise UserError(f"not found: {relative_to_cwd(path)}; give images, folders of images, or one video")
    return files


def detect_images(
    client: DetectorClient, files: list[Path], output: Path, labels: tuple[str, ...], score_thresh: float
) -> DetectSummary:
    """Detect in images, and write ``detections.json`` and an annotated JPEG for each.

    Files are sent as they are, several at once. A refused file is listed and does not stop the others.

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

    from ssd_triton.media.drawing import draw_detections

    summary = DetectSummary()
    encoded = (path.read_bytes() for path in files)
    answers = progress(client.map(encoded), total=len(files), description="detect", unit="images")
    stems: collections.Counter[str] = collections.Counter()
    for path, answer in zip(files, answers, strict=True):
        if isinstance(answer, RequestRefusedError):
            summary.refused.append(f"{relative_to_cwd(path)}: {answer}")
            summary.results.append({"file": str(path), "error": str(answer)})
            continue
        found = answer.filter(score_thresh=score_thresh)
        summary.results.append({"file": str(path), "detections": found.to_json(labels)})
        stems[path.stem] += 1
        number = f".{stems[path.stem]}" if stems[path.stem] > 1 else ""
        picture = output / f"{path.stem}{number}.annotated.jpg"
        image_rgb = np.array(Image.open(io.BytesIO(path.read_bytes())).convert("RGB"))
        with atomic_output(picture) as temporary:
            Image.fromarray(draw_detections(image_rgb, found, labels)).save(temporary, quality=92)
        summary.written.append(picture)
    _write_json(summary, output)
    return summary


def detect_video(
    client: DetectorClient, path: Path, output: Path, labels: tuple[str, ...], score_thresh: float
) -> DetectSummary:
    """Detect in a video, and write ``detections.json`` and an annotated MP4.

    Args:
        client: A connected client.
        path: A video file.
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
    with ExitStack() as stack:
        source = stack.enter_context(open_source(str(path), image_folder_fps=1))
        target = output / f"{path.stem}.annotated.mp4"
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


def _write_json(summary: DetectSummary, output: Path) -> None:
    path = output / "detections.json"
    with atomic_output(path) as temporary:
        temporary.write_text(json.dumps(summary.results, indent=1) + "\n", encoding="utf-8")
    summary.written.append(path)
