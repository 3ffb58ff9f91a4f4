"""Images and boxes to train on, decoded once and kept in memory as tensors of fixed shape."""

from __future__ import annotations

import hashlib
import logging
import math
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ssd_triton.common.arrays import UInt8Array
from ssd_triton.common.errors import listing
from ssd_triton.common.files import relative_to_cwd, sha256_of
from ssd_triton.common.machine import available_memory_bytes
from ssd_triton.common.progress import progress
from ssd_triton.evaluation import annotations as coco
from ssd_triton.training.classes import LEFT_OUT
from ssd_triton.training.errors import TrainingError
from ssd_triton.training.memory import check_images_fit

PADDING = 0
"""Label of an unused row of boxes."""
IGNORED = -1
"""Label of a box that is neither an object nor background: a crowd, or an object that is mostly cut off."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Source:
    """A dataset in COCO's format.

    Attributes:
        images: Folder of the images.
        annotations: A COCO ``instances_*.json``.
        weight: This set's part of all draws, relative to the other sets; None stands for its number of images.
        taught: Train on what the checkpoint sees in these images, instead of on the annotations.
    """

    images: Path
    annotations: Path
    weight: float | None = None
    taught: bool = False

    @property
    def name(self) -> str:
        """For messages and tables."""
        return relative_to_cwd(self.annotations)


@dataclass(frozen=True)
class Problems:
    """What was mended or left out while a dataset was read.

    Attributes:
        clipped: Boxes that reached out of their image and were cut at its border.
        dropped: Boxes of no size, or wholly outside their image.
        left_out: Boxes of categories that are not trained.
        bad_images: File names of images that are missing or damaged.
    """

    clipped: int = 0
    dropped: int = 0
    left_out: int = 0
    bad_images: tuple[str, ...] = ()


@dataclass(frozen=True)
class Examples:
    """Images with their boxes.

    Attributes:
        source: Where they come from.
        pixels: UINT8 [N, 3, S, S] RGB, squashed to a square as the network sees images.
        boxes_xyxy: FP32 [N, G, 4], fractions of the image, in [0, 1].
        labels: INT64 [N, G]: the class id, or :data:`PADDING` or :data:`IGNORED`.
        file_names: Of the images.
        content_sha256: Of the image files.
        annotations_sha256: Of the annotation file.
        problems: What was mended or left out.
    """

    source: Source
    pixels: Tensor
    boxes_xyxy: Tensor
    labels: Tensor
    file_names: tuple[str, ...]
    content_sha256: tuple[str, ...]
    annotations_sha256: str
    problems: Problems

    def __len__(self) -> int:
        return len(self.file_names)

    def counts(self, num_labels: int) -> list[int]:
        """Boxes of each class, by class id; that of the background is 0."""
        found = torch.bincount(self.labels[self.labels > 0], minlength=num_labels)
        return [int(count) for count in found]


@dataclass
class _Boxes:
    """Boxes of one image, in pixels of its file."""

    xyxy_px: list[tuple[float, float, float, float]] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class _Decoded:
    pixels: UInt8Array
    size_px: tuple[int, int]
    sha256: str


ClassMap = Callable[[Sequence[coco.Category], str], Mapping[int, int]]
"""From the categories and the name of an annotation file to a class id for each category id."""


def load_examples(source: Source, class_map: ClassMap, side_px: int, *, skip_bad: bool) -> Examples:
    """Read a dataset into memory.

    Args:
        source: Where it lies.
        class_map: Gives every category its class.
        side_px: Width and height that every image is resized to.
        skip_bad: Leave out images that are missing or damaged, instead of refusing the dataset.

    Raises:
        EvaluationError: The annotation file is no COCO file, contradicts itself, or holds a number that is not finite.
        TrainingError: A category is unknown, images are missing or damaged, or nothing is left to train on.
    """
    found = coco.read_annotations(source.annotations)
    classes = class_map(found.categories, source.name)
    boxes = _by_image(found, classes)
    if not source.images.is_dir():
        raise TrainingError(f"folder of images not found: {relative_to_cwd(source.images)}; give it with --data")
    check_images_fit(len(found.images), side_px, available_memory_bytes(), source.name)
    decoded: dict[int, _Decoded] = {}
    bad: list[str] = []
    for image, result in zip(found.images, _decode_all(source, found.images, side_px), strict=True):
        if isinstance(result, _Decoded):
            decoded[image.id] = result
        else:
            bad.append(f"{image.file_name} ({result})")
    if bad and not skip_bad:
        raise TrainingError(
            f"{source.name}: {len(bad)} of {len(found.images)} images are missing or damaged: {listing(bad)}; mend "
            "them, or leave them out with --skip-bad"
        )
    if not decoded:
        raise TrainingError(
            f"{relative_to_cwd(source.images)} holds none of the {len(found.images)} images that {source.name} names"
        )
    images = [image for image in found.images if image.id in decoded]
    left_out = sum(classes[one.category_id] == LEFT_OUT for one in found.annotations)
    return _pack(source, images, decoded, boxes, side_px, Problems(left_out=left_out, bad_images=tuple(bad)))


def report_problems(examples: Examples) -> None:
    """Say on the log what was mended or left out."""
    problems = examples.problems
    for count, what in (
        (problems.clipped, "boxes reached out of their image and were cut at its border"),
        (problems.dropped, "boxes have no size or lie outside their image and were dropped"),
        (problems.left_out, "boxes are of categories that are not trained"),
        (len(problems.bad_images), f"images were left out: {listing(list(problems.bad_images))}"),
    ):
        if count:
            _log.warning("warning: %s: %d %s", examples.source.name, count, what)


def _by_image(found: coco.Annotations, classes: Mapping[int, int]) -> dict[int, _Boxes]:
    boxes: dict[int, _Boxes] = {image.id: _Boxes() for image in found.images}
    for one in found.annotations:
        class_id = classes[one.category_id]
        if class_id == LEFT_OUT:
            continue
        left, top, width, height = one.bbox
        boxes[one.image_id].xyxy_px.append((left, top, left + width, top + height))
        boxes[one.image_id].labels.append(IGNORED if one.iscrowd else class_id)
    return boxes


def _decode_all(source: Source, images: Sequence[coco.Image], side_px: int) -> list[_Decoded | str]:
    """Every image, or why it cannot be read."""

    def decode(image: coco.Image) -> _Decoded | str:
        try:
            content = (source.images / image.file_name).read_bytes()
            with Image.open(BytesIO(content)) as opened:
                resized = opened.convert("RGB").resize((side_px, side_px), Image.Resampling.BILINEAR)
                return _Decoded(np.array(resized), opened.size, hashlib.sha256(content).hexdigest())
        except FileNotFoundError:
            return "missing"
        # What PIL raises on damaged files; SyntaxError on PNGs.
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            return " ".join(str(error).split())[:80]

    pool = ThreadPoolExecutor(os.cpu_count() or 1)
    try:
        results = pool.map(decode, images)
        return list(progress(results, total=len(images), description=f"read {source.name}", unit="images"))
    finally:
        pool.shutdown(cancel_futures=True)


def _pack(  # noqa: PLR0917
    source: Source,
    images: Sequence[coco.Image],
    decoded: dict[int, _Decoded],
    boxes: Mapping[int, _Boxes],
    side_px: int,
    problems: Problems,
) -> Examples:
    """One tensor of all images, which are taken out of ``decoded``, so that memory holds each of them once."""
    most = max((len(boxes[image.id].labels) for image in images), default=0)
    packed = np.zeros((len(images), max(most, 1), 4), np.float32)
    labels = np.full((len(images), max(most, 1)), PADDING, np.int64)
    pixels = np.empty((len(images), 3, side_px, side_px), np.uint8)
    sha256, clipped, dropped = [], 0, 0
    for row, image in enumerate(images):
        found, one = boxes[image.id], decoded.pop(image.id)
        pixels[row] = one.pixels.transpose(2, 0, 1)
        sha256.append(one.sha256)
        width_px, height_px = one.size_px
        xyxy = np.array(found.xyxy_px, np.float64).reshape(-1, 4) / (width_px, height_px, width_px, height_px)
        cut = xyxy.clip(0, 1)
        # Rounding in annotation files reaches out by less than a pixel: that is not worth a warning.
        outside_px = np.abs(cut - xyxy).max(axis=1, initial=0) * max(width_px, height_px)
        kept = (cut[:, 2] > cut[:, 0]) & (cut[:, 3] > cut[:, 1])
        clipped += int((kept & (outside_px >= 1)).sum())
        dropped += int((~kept).sum())
        count = int(kept.sum())
        packed[row, :count] = cut[kept]
        labels[row, :count] = np.array(found.labels, np.int64)[kept]
    examples = Examples(
        source,
        torch.from_numpy(pixels),
        torch.from_numpy(packed),
        torch.from_numpy(labels),
        tuple(image.file_name for image in images),
        tuple(sha256),
        sha256_of(source.annotations),
        replace(problems, clipped=clipped, dropped=dropped),
    )
    if not bool((examples.labels > 0).any()):
        raise TrainingError(f"{source.name}: got no box of a class to train; expected objects")
    return examples


def refuse_overlap(training: Sequence[Examples], file_names: Sequence[str], content_sha256: Sequence[str]) -> None:
    """Refuse to train on images that are validated on, found by name and by content.

    COCO names an image by its number, so that a shrunk copy keeps its name; a renamed copy keeps its content.

    Args:
        training: What is trained on.
        file_names: Of the validation images.
        content_sha256: Of the validation images' files.

    Raises:
        TrainingError: Some are the same.
    """
    names, contents = {_stem(name) for name in file_names}, set(content_sha256)
    for examples in training:
        pairs = zip(examples.file_names, examples.content_sha256, strict=True)
        same = [name for name, sha256 in pairs if _stem(name) in names or sha256 in contents]
        if same:
            raise TrainingError(
                f"{len(same)} of {len(examples)} images of {examples.source.name} are validation images: "
                f"{listing(same)}; expected other ones: remove them from the training set or validate on another set"
            )


def _stem(file_name: str) -> str:
    return Path(file_name).stem.removeprefix("COCO_train2014_").removeprefix("COCO_val2014_")


def draw_weights(training: Sequence[Examples], num_labels: int, often: Mapping[int, float], rare: float) -> Tensor:
    """How often each image is drawn, so that rare and wanted classes are seen more.

    A class in a part f of all images is repeated max(1, sqrt(rare / f)) times, as in Gupta et al., "LVIS" (2019), and
    an image as often as the class in it that is repeated most.

    Args:
        training: All sets; each gets its weight's part of the draws.
        num_labels: Classes, the background included.
        often: By class id, how many times more than that its images are drawn.
        rare: Classes in a smaller part of the images than this are repeated.

    Returns:
        FP64 [N], in the order of the sets, of sum 1.
    """
    present = torch.cat([_present(examples, num_labels) for examples in training])
    frequency = present.double().mean(dim=0).clamp(min=1 / len(present))
    repeat = torch.sqrt(rare / frequency).clamp(min=1)
    for class_id, factor in often.items():
        repeat[class_id] *= factor
    of_image = (present * repeat).amax(dim=1).clamp(min=1)
    parts = []
    for examples, weights in zip(
        training, torch.split(of_image, [len(examples) for examples in training]), strict=True
    ):
        share = len(examples) if examples.source.weight is None else examples.source.weight
        parts.append(weights / weights.sum() * share)
    joined = torch.cat(parts)
    total = float(joined.sum())
    if not (math.isfinite(total) and total > 0):
        raise TrainingError(f"got weights of the sets that add up to {total}, expected a sum above 0")
    return joined / total


def _present(examples: Examples, num_labels: int) -> Tensor:
    """BOOL [N, num_labels]: which classes each image holds."""
    present = torch.zeros(len(examples), num_labels, dtype=torch.bool)
    present.scatter_(1, examples.labels.clamp(min=0), value=True)
    present[:, 0] = False
    return present
