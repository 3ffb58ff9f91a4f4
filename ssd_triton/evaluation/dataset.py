"""Datasets for evaluation: a selection of images in COCO format, and the category of each class of the model."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from ssd_triton.common.errors import ImageError, listing
from ssd_triton.common.files import relative_to_cwd, sha256_of
from ssd_triton.config import ImageSet
from ssd_triton.evaluation.annotations import Annotation, Annotations, Image, read_annotations, used_categories
from ssd_triton.evaluation.categories import by_order, match_categories
from ssd_triton.evaluation.errors import EvaluationError
from ssd_triton.evaluation.orientation import is_annotated_upright, upright_refusal
from ssd_triton.media.images import read_image, read_served


@dataclass(frozen=True)
class DatasetSource:
    """Files of a dataset, and the choice of its images.

    Attributes:
        images: Folder of the images.
        annotations: A COCO ``instances_*.json``.
        image_set: ``all`` images of the file, or only the ``annotated`` ones, as NVIDIA DeepLearningExamples evaluates.
        limit: Number of images, spread evenly over the sorted ids; None for all.
    """

    images: Path
    annotations: Path
    image_set: ImageSet = "all"
    limit: int | None = None


@dataclass(frozen=True)
class Dataset:
    """Images to evaluate, by ascending id, with their ground truth.

    Attributes:
        source: Files and choice.
        images: Chosen images, without those left out.
        left_out: File names of chosen images that are absent; see :func:`only_present`.
        annotations: Boxes of the chosen images.
        category_names: Names in the file, by category id.
        category_ids: Category ids by class id of the model; classes that the file lacks have none.
    """

    source: DatasetSource
    images: tuple[Image, ...]
    left_out: tuple[str, ...]
    annotations: tuple[Annotation, ...]
    category_names: Mapping[int, str]
    category_ids: Mapping[int, int]

    def path(self, image: Image) -> Path:
        """The file of an image."""
        return self.source.images / image.file_name

    def read(self, image: Image) -> bytes:
        """The encoded content of an image, as a server takes it.

        Raises:
            EvaluationError: It cannot be read, or is in an unsupported format.
        """
        try:
            return read_served(self.path(image))
        except ImageError as error:
            raise EvaluationError(f"{error} ({relative_to_cwd(self.source.annotations)} names it)") from error

    def restricted_to(self, images: Sequence[Image]) -> Dataset:
        """Restrict the dataset to some of its images."""
        ids = {image.id for image in images}
        boxes = tuple(one for one in self.annotations if one.image_id in ids)
        return replace(self, images=tuple(images), annotations=boxes)

    def missing_files(self) -> list[str]:
        """Names of images that are not in their folder."""
        return [image.file_name for image in self.images if not self.path(image).is_file()]

    @property
    def set_name(self) -> str:
        """Description of the set, for reports."""
        kind = {"all": "all images", "annotated": "images with annotations only"}[self.source.image_set]
        chosen = "" if self.source.limit is None else f", {self.source.limit} spread evenly over the sorted ids"
        missing = f", {len(self.left_out)} missing ones left out" if self.left_out else ""
        return f"{len(self.images)} images of {self.source.annotations.name} ({kind}{chosen}{missing})"

    @cached_property
    def fingerprint(self) -> dict[str, object]:
        """JSON values that identify the dataset: kept results are valid only for the same values."""
        ids = ",".join(str(image.id) for image in self.images)
        return {
            "annotations_sha256": sha256_of(self.source.annotations),
            "image_set": self.source.image_set,
            "limit": self.source.limit,
            "images": len(self.images),
            "image_ids_sha256": hashlib.sha256(ids.encode()).hexdigest(),
            "category_ids": {str(class_id): category_id for class_id, category_id in self.category_ids.items()},
        }


def load_dataset(
    source: DatasetSource, labels: Sequence[str] | None = None, name_map: Mapping[str, str] | None = None
) -> Dataset:
    """Read the annotations and choose the images; :func:`only_present` checks that their files exist.

    Args:
        source: Files and choice.
        labels: Class names by id, the background first; None maps classes by order, whatever the categories' names.
        name_map: Label by the name in the file, where they differ.

    Raises:
        EvaluationError: The annotations are no COCO file or do not match the labels, or there are fewer images than
            wanted.
    """
    found = read_annotations(source.annotations)
    if labels is None:
        category_ids = by_order(found.categories)
    else:
        name = relative_to_cwd(source.annotations)
        categories = found.categories
        if len(categories) != len(labels) - 1:  # as many as classes map by their order
            categories = used_categories(found, {*labels, *(name_map or {})})
        category_ids = match_categories(categories, labels, name_map or {}, name)
    dataset = Dataset(
        source,
        images=(),
        left_out=(),
        annotations=found.annotations,
        category_names={category.id: category.name for category in found.categories},
        category_ids=category_ids,
    )
    return dataset.restricted_to(_choose(found, source))


def only_present(dataset: Dataset, *, skip_missing: bool) -> Dataset:
    """Leave out the images that are not in their folder.

    Raises:
        EvaluationError: The folder is missing or holds none of them; some are absent, and ``skip_missing`` is False; or
            images were annotated as EXIF turns them.
    """
    folder, count = relative_to_cwd(dataset.source.images), len(dataset.images)
    if not dataset.source.images.is_dir():
        raise EvaluationError(f"folder of images not found: {folder}; give it with --images")
    missing = dataset.missing_files()
    if len(missing) == count:
        raise EvaluationError(
            f"{folder} holds none of the {count} images that {relative_to_cwd(dataset.source.annotations)} names; give "
            "their folder with --images"
        )
    if missing and not skip_missing:
        raise EvaluationError(
            f"{folder} lacks {len(missing)} of {count} images that {relative_to_cwd(dataset.source.annotations)} "
            f"names: {listing(missing)}; give their folder with --images, or leave them out with --skip-missing"
        )
    absent = set(missing)
    present = [image for image in dataset.images if image.file_name not in absent]
    _refuse_annotated_upright(dataset, present)
    return replace(dataset.restricted_to(present), left_out=tuple(missing))


def _refuse_annotated_upright(dataset: Dataset, images: Sequence[Image]) -> None:
    """Refuse images that were annotated as EXIF turns them; unreadable images are refused later, by name."""
    from ssd_triton.media.decoding import image_size_px

    turned = []
    for image in images:
        if image.width is None or image.height is None or image.width == image.height:
            continue
        with contextlib.suppress(ImageError):
            encoded = read_image(dataset.path(image))
            if is_annotated_upright(image, image_size_px(encoded), encoded):
                turned.append(image.file_name)
    if turned:
        raise EvaluationError(upright_refusal(relative_to_cwd(dataset.source.annotations), turned, len(images)))


def _choose(found: Annotations, source: DatasetSource) -> list[Image]:
    annotated = {annotation.image_id for annotation in found.annotations}
    wanted = [image for image in found.images if source.image_set == "all" or image.id in annotated]
    wanted.sort(key=lambda image: image.id)
    count = len(wanted) if source.limit is None else source.limit
    if len(wanted) < count:
        raise EvaluationError(
            f"got {len(wanted)} images in {relative_to_cwd(source.annotations)}, expected {count} or more: ask for "
            "fewer"
        )
    return [wanted[index * len(wanted) // count] for index in range(count)]
