"""Detections in a drive without annotations: boxes and frames by class, and pictures of some frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from ssd_triton.common.arrays import UInt8Array
from ssd_triton.common.detections import Detections
from ssd_triton.common.files import atomic_output, relative_to_cwd
from ssd_triton.common.progress import progress
from ssd_triton.evaluation.errors import EvaluationError
from ssd_triton.evaluation.offline import detect_each
from ssd_triton.media.decoding import decode_rgb
from ssd_triton.media.drawing import draw_detections
from ssd_triton.media.images import list_images, read_image

if TYPE_CHECKING:
    import torch

    from ssd_triton.detector.network.ssd import SSD300

_BATCH = 16
_SHEET_COLUMNS, _SHEET_WIDTH_PX = 2, 640


@dataclass(frozen=True)
class ClassCount:
    """Frames with a class, and its boxes."""

    frames: int
    boxes: int


@dataclass(frozen=True)
class DriveCounts:
    """Counts of the detections in a drive.

    Attributes:
        frames: Number of frames.
        classes: Counts of the detected classes, by name.
    """

    frames: int
    classes: Mapping[str, ClassCount]

    def row(self, name: str) -> list[str]:
        """A row for :data:`HEADER`: the most frequent class, and all others."""
        ranked = sorted(self.classes.items(), key=lambda item: -item[1].boxes)
        if not ranked:
            return [name, "nothing", "", ""]
        (first, count), others = ranked[0], ranked[1:]
        listed = ", ".join(f"{label} {found.boxes}" for label, found in others) or "none"
        boxes = sum(found.boxes for _, found in others)
        return [name, f"{first} in {count.frames} of {self.frames}", str(boxes), listed]


HEADER = ("weights", "frames with the most frequent class", "boxes of other classes", "which")


def detect_drive(network: SSD300, device: torch.device, drive: Path, score_thresh: float) -> list[Detections]:
    """Detect objects in each frame with the offline reference.

    Args:
        network: FP32, on the device.
        device: Device of the network.
        drive: A folder of images.
        score_thresh: Detections below are left out.

    Raises:
        EvaluationError: There are no images.
        ImageError: One of them is damaged.
    """
    from ssd_triton.detector.network.ssd import ServedDetector

    detector = ServedDetector(network).to(device).eval()
    paths = _frames(drive)
    frames = progress(paths, total=len(paths), description=drive.name, unit="images")
    detected = detect_each(detector, frames, _preprocessed, device, _BATCH)
    return [found.filter(score_thresh=score_thresh) for _, found in detected]


def count_classes(found: Sequence[Detections], labels: Sequence[str]) -> DriveCounts:
    """Count the detections by class."""
    classes = {}
    for class_id, name in enumerate(labels):
        boxes = [int((one.class_ids == class_id).sum()) for one in found]
        if sum(boxes):
            classes[name] = ClassCount(sum(count > 0 for count in boxes), sum(boxes))
    return DriveCounts(len(found), classes)


def write_sheet(path: Path, drive: Path, found: Sequence[Detections], labels: Sequence[str], count: int = 6) -> None:
    """Draw the detections of some frames, spread evenly over the drive, into one picture."""
    frames = _frames(drive)
    places = sorted({index * (len(frames) - 1) // max(count - 1, 1) for index in range(count)})
    drawn = [draw_detections(_pixels(frames[place]), found[place], labels) for place in places]
    height_px = _SHEET_WIDTH_PX * drawn[0].shape[0] // drawn[0].shape[1]
    rows = -(-len(drawn) // _SHEET_COLUMNS)
    sheet = Image.new("RGB", (_SHEET_COLUMNS * _SHEET_WIDTH_PX, rows * height_px))
    for place, picture in enumerate(drawn):
        tile = Image.fromarray(picture).resize((_SHEET_WIDTH_PX, height_px))
        sheet.paste(tile, (place % _SHEET_COLUMNS * _SHEET_WIDTH_PX, place // _SHEET_COLUMNS * height_px))
    with atomic_output(path) as temporary:
        sheet.save(temporary, quality=88)


def _preprocessed(path: Path) -> tuple[UInt8Array, tuple[int, int]]:
    from ssd_triton.detector.protocol import preprocess

    return preprocess(read_image(path), relative_to_cwd(path))


def _frames(drive: Path) -> tuple[Path, ...]:
    """Images of a drive, sorted by name.

    Raises:
        EvaluationError: There are none.
    """
    found = list_images(drive)
    found.warn_of_skipped()
    if not found.paths:
        raise EvaluationError(f"{found.nothing_found()}; give the frames of a drive")
    return found.paths


def _pixels(frame: Path) -> UInt8Array:
    return decode_rgb(read_image(frame), relative_to_cwd(frame))
