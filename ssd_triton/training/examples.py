"""Training images and boxes, decoded once and kept in memory as tensors of fixed shape."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ssd_triton.common.arrays import UInt8Array
from ssd_triton.common.errors import listing
from ssd_triton.common.files import relative_to_cwd, sha256_of
from ssd_triton.common.machine import available_memory_bytes
from ssd_triton.evaluation import annotations as coco
from ssd_triton.evaluation.orientation import upright_refusal
from ssd_triton.training.class_map import LEFT_OUT, ClassMap
from ssd_triton.training.errors import TrainingError
from ssd_triton.training.out_of_memory import check_images_fit
from ssd_triton.training.pixels import ImageFile, decode_images

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
        weight: The set's share of all draws, relative to the other sets; None for its number of images.
        taught: Train on the outputs of the checkpoint for these images, instead of on the annotations.
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
    """Corrections and omissions when a dataset was read.

    Attributes:
        clipped: Number of boxes that were cut at the border of their image.
        dropped: Number of boxes that have no size or lie outside their image.
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
        problems: Corrections and omissions.
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


class _Boxes(NamedTuple):
    """All boxes of some images: FP32 [N, G, 4] and INT64 [N, G], and how many were cut at a border or dropped."""

    xyxy: Tensor
    labels: Tensor
    clipped: int
    dropped: int


def load_examples(source: Source, class_map: ClassMap, side_px: int, *, skip_bad: bool) -> Examples:
    """Read a dataset into memory.

    Args:
        source: The dataset.
        class_map: Classes of its categories.
        side_px: Width and height that every image is resized to.
        skip_bad: Leave out missing and damaged images, instead of refusing the dataset.

    Raises:
        EvaluationError: The annotation file is no COCO file, contradicts itself, or holds a number that is not finite.
        TrainingError: A category is unknown, images are missing or damaged, nothing is left to train on, or images were
            annotated as EXIF turns them.
    """
    found = coco.read_annotations(source.annotations)
    classes = class_map.class_ids(coco.used_categories(found, class_map.names), source.name)
    if not source.images.is_dir():
        raise TrainingError(f"folder of images not found: {relative_to_cwd(source.images)}; give it with --data")
    check_images_fit(len(found.images), side_px, available_memory_bytes(), source.name)
    pixels, properties = decode_images(source.images, found.images, side_px, f"read {source.name}")
    files: dict[int, ImageFile] = {}
    bad: list[str] = []
    for image, one in zip(found.images, properties, strict=True):
        if isinstance(one, ImageFile):
            files[image.id] = one
        else:
            bad.append(f"{image.file_name} ({one})")
    if bad and not skip_bad:
        raise TrainingError(
            f"{source.name}: {len(bad)} of {len(found.images)} images are missing or damaged: {listing(bad)}; repair "
            "them, or leave them out with --skip-bad"
        )
    if not files:
        raise TrainingError(
            f"{relative_to_cwd(source.images)} holds none of the {len(found.images)} images that {source.name} names"
        )
    images = [image for image in found.images if image.id in files]
    turned = [image.file_name for image in images if files[image.id].annotated_upright]
    if turned:
        raise TrainingError(upright_refusal(source.name, turned, len(images)))
    _close_gaps(pixels, [row for row, image in enumerate(found.images) if image.id in files])
    boxes = _pack(found, classes, {image.id: files[image.id].size_px for image in images})
    if not bool((boxes.labels > 0).any()):
        raise TrainingError(f"{source.name}: got no box of a class to train; expected objects")
    left_out = sum(classes[one.category_id] == LEFT_OUT for one in found.annotations)
    return Examples(
        source,
        torch.from_numpy(pixels[: len(images)]),
        boxes.xyxy,
        boxes.labels,
        tuple(image.file_name for image in images),
        tuple(files[image.id].sha256 for image in images),
        sha256_of(source.annotations),
        Problems(boxes.clipped, boxes.dropped, left_out, tuple(bad)),
    )


def report_problems(examples: Examples) -> None:
    """Log corrections and omissions."""
    problems = examples.problems
    for count, what in (
        (problems.clipped, "boxes reached out of their image and were cut at its border"),
        (problems.dropped, "boxes have no size or lie outside their image and were dropped"),
        (problems.left_out, "boxes are of categories that are not trained"),
        (len(problems.bad_images), f"images were left out: {listing(list(problems.bad_images))}"),
    ):
        if count:
            _log.warning("warning: %s: %d %s", examples.source.name, count, what)


def _close_gaps(pixels: UInt8Array, kept: Sequence[int]) -> None:
    """Move the rows to keep, given in ascending order, to the front."""
    for row, place in enumerate(kept):
        if row != place:
            pixels[row] = pixels[place]


def _pack(found: coco.Annotations, classes: Mapping[int, int], sizes_px: Mapping[int, tuple[int, int]]) -> _Boxes:
    """The boxes of images, one row for each.

    Args:
        found: The annotations; other images' boxes are ignored.
        classes: Class ids by category.
        sizes_px: Width and height of the images by id, in the order of the rows.
    """
    rows = {image_id: row for row, image_id in enumerate(sizes_px)}
    trained = [one for one in found.annotations if classes[one.category_id] != LEFT_OUT and one.image_id in rows]
    row = np.array([rows[one.image_id] for one in trained], np.int64)
    label = np.array([IGNORED if one.iscrowd else classes[one.category_id] for one in trained], np.int64)
    corner_size = np.array([one.bbox for one in trained], np.float64).reshape(-1, 4)
    corners = np.concatenate([corner_size[:, :2], corner_size[:, :2] + corner_size[:, 2:]], axis=1)
    size_px = np.array(list(sizes_px.values()), np.float64)[row]
    xyxy = corners / np.tile(size_px, 2)
    cut = xyxy.clip(0, 1)
    outside_px = (np.abs(cut - xyxy) * np.tile(size_px, 2)).max(axis=1, initial=0)
    kept = (cut[:, 2] > cut[:, 0]) & (cut[:, 3] > cut[:, 1])
    columns = max(1, int(np.bincount(row, minlength=1).max()))
    packed = np.zeros((len(rows), columns, 4), np.float32)
    labels = np.full((len(rows), columns), PADDING, np.int64)
    # By image, in the file's order within each; the column counts from the image's first box.
    order = np.flatnonzero(kept)[np.argsort(row[kept], kind="stable")]
    row = row[order]
    column = np.arange(len(row)) - np.searchsorted(row, row)
    packed[row, column], labels[row, column] = cut[order], label[order]
    # Less than a pixel is rounding in the annotation file, and deserves no warning.
    clipped, dropped = int((kept & (outside_px >= 1)).sum()), int((~kept).sum())
    return _Boxes(torch.from_numpy(packed), torch.from_numpy(labels), clipped, dropped)
