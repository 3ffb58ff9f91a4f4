"""Training images and boxes, decoded once and kept in memory as tensors of fixed shape."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ssd_triton.common.arrays import Float64Array, UInt8Array
from ssd_triton.common.cores import usable_cores
from ssd_triton.common.errors import ImageError, listing
from ssd_triton.common.files import relative_to_cwd, sha256_of
from ssd_triton.common.machine import available_memory_bytes
from ssd_triton.common.progress import progress
from ssd_triton.evaluation import annotations as coco
from ssd_triton.evaluation.orientation import is_annotated_upright, upright_refusal
from ssd_triton.media.decoding import open_rgb
from ssd_triton.media.images import read_image
from ssd_triton.training.class_map import LEFT_OUT, ClassMap
from ssd_triton.training.errors import TrainingError
from ssd_triton.training.out_of_memory import check_images_fit

PADDING = 0
"""Label of an unused row of boxes."""
IGNORED = -1
"""Label of a box that is neither object nor background: a crowd, or an object that is mostly cut off."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Source:
    """A dataset in COCO's format.

    Attributes:
        images: Folder of the images.
        annotations: A COCO ``instances_*.json``.
        weight: The set's share of all draws, relative to the other sets; None stands for its number of images.
        taught: Train on what the checkpoint detects in these images, instead of on the annotations.
    """

    images: Path
    annotations: Path
    weight: float | None = None
    taught: bool = False

    @property
    def name(self) -> str:
        """Name for messages and tables."""
        return relative_to_cwd(self.annotations)


@dataclass(frozen=True)
class Problems:
    """What was corrected or left out when a dataset was read.

    Attributes:
        clipped: Number of boxes that were cut at the border of their image.
        dropped: Number of boxes without size or outside their image.
        left_out: Number of boxes whose category is not trained.
        bad_images: File names of missing and damaged images.
    """

    clipped: int = 0
    dropped: int = 0
    left_out: int = 0
    bad_images: tuple[str, ...] = ()


@dataclass(frozen=True)
class Examples:
    """Images with their boxes.

    Attributes:
        source: The dataset.
        pixels: UINT8 [N, 3, S, S] RGB, squashed to a square as the network sees images.
        boxes_xyxy: FP32 [N, G, 4], fractions of the image, in [0, 1].
        labels: INT64 [N, G]: the class id, or :data:`PADDING` or :data:`IGNORED`.
        file_names: One for each image.
        content_sha256: One for each image file.
        annotations_sha256: Digest of the annotation file.
        problems: What was corrected or left out.
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
        """Number of boxes by class id; 0 for the background."""
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
    annotated_upright: bool


def load_examples(source: Source, class_map: ClassMap, side_px: int, *, skip_bad: bool) -> Examples:
    """Read a dataset into memory.

    Args:
        source: The dataset.
        class_map: Classes of its categories.
        side_px: Width and height that every image is resized to.
        skip_bad: Leave out missing and damaged images, instead of refusing the dataset.

    Raises:
        EvaluationError: The annotation file is no COCO file, contradicts itself, or holds a number that is not finite.
        TrainingError: A category is unknown, images are missing or damaged, nothing is left to train on, or
            boxes are of images that EXIF has turned.
    """
    found = coco.read_annotations(source.annotations)
    classes = class_map.class_ids(coco.used_categories(found, class_map.names), source.name)
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
            f"{source.name}: {len(bad)} of {len(found.images)} images are missing or damaged: {listing(bad)}; repair "
            "them, or leave them out with --skip-bad"
        )
    if not decoded:
        raise TrainingError(
            f"{relative_to_cwd(source.images)} holds none of the {len(found.images)} images that {source.name} names"
        )
    images = [image for image in found.images if image.id in decoded]
    turned = [image.file_name for image in images if decoded[image.id].annotated_upright]
    if turned:
        raise TrainingError(upright_refusal(source.name, turned, len(images)))
    left_out = sum(classes[one.category_id] == LEFT_OUT for one in found.annotations)
    examples = _pack(source, images, decoded, _by_image(found, classes))
    if not bool((examples.labels > 0).any()):
        raise TrainingError(f"{source.name}: got no box of a class to train; expected objects")
    return replace(examples, problems=replace(examples.problems, left_out=left_out, bad_images=tuple(bad)))


def report_problems(examples: Examples) -> None:
    """Log what was corrected or left out."""
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
        path = source.images / image.file_name
        if not path.exists():
            return "missing"
        try:
            content = read_image(path)
            opened = open_rgb(content, image.file_name)
        except ImageError as error:
            return str(error)
        resized = opened.resize((side_px, side_px), Image.Resampling.BILINEAR)
        return _Decoded(
            np.array(resized),
            opened.size,
            hashlib.sha256(content).hexdigest(),
            is_annotated_upright(image, opened.size, content),
        )

    pool = ThreadPoolExecutor(usable_cores())
    try:
        results = pool.map(decode, images)
        return list(progress(results, total=len(images), description=f"read {source.name}", unit="images"))
    finally:
        pool.shutdown(cancel_futures=True)


def _pack(
    source: Source, images: Sequence[coco.Image], decoded: dict[int, _Decoded], boxes: Mapping[int, _Boxes]
) -> Examples:
    """One tensor for all images; removes them from ``decoded``, so that memory holds each of them once."""
    rows = max(1, *(len(boxes[image.id].labels) for image in images))
    packed = np.zeros((len(images), rows, 4), np.float32)
    labels = np.full((len(images), rows), PADDING, np.int64)
    pixels = np.empty((len(images), 3, *decoded[images[0].id].pixels.shape[:2]), np.uint8)
    sha256, clipped, dropped = [], 0, 0
    for row, image in enumerate(images):
        found, one = boxes[image.id], decoded.pop(image.id)
        pixels[row] = one.pixels.transpose(2, 0, 1)
        sha256.append(one.sha256)
        cut, outside_px = _clip(found, one.size_px)
        kept = (cut[:, 2] > cut[:, 0]) & (cut[:, 3] > cut[:, 1])
        # Less than a pixel is rounding in the annotation file, and deserves no warning.
        clipped += int((kept & (outside_px >= 1)).sum())
        dropped += int((~kept).sum())
        packed[row, : kept.sum()] = cut[kept]
        labels[row, : kept.sum()] = np.array(found.labels, np.int64)[kept]
    return Examples(
        source,
        torch.from_numpy(pixels),
        torch.from_numpy(packed),
        torch.from_numpy(labels),
        tuple(image.file_name for image in images),
        tuple(sha256),
        sha256_of(source.annotations),
        Problems(clipped, dropped),
    )


def _clip(boxes: _Boxes, size_px: tuple[int, int]) -> tuple[Float64Array, Float64Array]:
    """Cut boxes at the border of their image: [G, 4] fractions of it, and how far each reached out, [G] in pixels."""
    xyxy = np.array(boxes.xyxy_px, np.float64).reshape(-1, 4) / (*size_px, *size_px)
    cut = xyxy.clip(0, 1)
    return cut, np.abs(cut - xyxy).max(axis=1, initial=0) * max(size_px)
