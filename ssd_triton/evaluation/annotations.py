"""Reading annotation files in COCO's format (https://cocodataset.org/#format-data): the keys that concern boxes."""

from __future__ import annotations

import codecs
from collections import Counter
from collections.abc import Collection, Iterable
from pathlib import Path, PurePosixPath
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ssd_triton.common.files import printable_name, relative_to_cwd
from ssd_triton.evaluation.errors import EvaluationError

_Side = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_Place = Annotated[float, Field(allow_inf_nan=False)]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Image(_Record):
    """An image: ``file_name`` is relative to the folder of images; width and height in pixels are not always given."""

    id: int
    file_name: str
    width: float | None = None
    height: float | None = None


class Category(_Record):
    """A class of the file; ids need not be consecutive."""

    id: int
    name: str


class Annotation(_Record):
    """One object: left, top, width and height of its box in pixels; a crowd is one box around many."""

    image_id: int
    category_id: int
    bbox: tuple[_Place, _Place, _Side, _Side]
    area: _Side | None = None
    """Area of the object's mask in pixels; None if there is no mask, and the area of the box is used."""
    iscrowd: bool = False
    score: float | None = None
    """Score of the detector that found the object; None where people annotated it."""

    @property
    def area_px(self) -> float:
        """Area that decides whether the object is small, medium or large."""
        return self.bbox[2] * self.bbox[3] if self.area is None else self.area


class Annotations(_Record):
    """The content of an annotation file."""

    images: tuple[Image, ...]
    annotations: tuple[Annotation, ...]
    categories: tuple[Category, ...]
    annotated_category_ids: tuple[int, ...] | None = None
    """Categories whose objects are all annotated; None for all categories of the file."""


Content = TypeVar("Content", bound=Annotations)


def used_categories(found: Annotations, known: Collection[str]) -> tuple[Category, ...]:
    """The categories with boxes, or with a known name of their own; Roboflow's root category has neither."""
    used = {one.category_id for one in found.annotations}
    expected = set(known) - {one.name for one in found.categories if one.id in used}
    return tuple(one for one in found.categories if one.id in used or one.name in expected)


def read_annotations(path: Path) -> Annotations:
    """Read and check an annotation file.

    Raises:
        EvaluationError: See :func:`read_annotations_as`.
    """
    return read_annotations_as(path, Annotations, "a COCO instances_*.json file")


def read_annotations_as(path: Path, content: type[Content], expected: str) -> Content:
    """Read and check an annotation file that holds more than COCO's keys.

    Args:
        path: The file.
        content: Model of its content.
        expected: Description of the expected file, for error messages.

    Raises:
        EvaluationError: It cannot be read, is no COCO file, holds no boxes, or contradicts itself.
    """
    name = relative_to_cwd(path)
    try:
        found = content.model_validate_json(path.read_bytes().removeprefix(codecs.BOM_UTF8))
    except OSError as error:
        raise EvaluationError(
            f"cannot read the annotations {name} ({error.strerror}); give a COCO instances_*.json with --annotations"
        ) from error
    except ValidationError as error:
        raise EvaluationError(f"{name}: {_describe(error)}; expected {expected}") from None
    if not found.annotations:
        raise EvaluationError(f"{name} lacks boxes: its 'annotations' are empty; give a file with ground truth")
    _check_consistent(found, name)
    return found


def _describe(error: ValidationError) -> str:
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    rest = f" (and {error.error_count() - 1} problems more)" if error.error_count() > 1 else ""
    if first["type"] == "missing":
        return f"lacks '{place}'{rest}"
    return f"{f'{place}: ' if place else ''}{' '.join(first['msg'].lower().split())}{rest}"


def _check_consistent(found: Annotations, name: str) -> None:
    for kind, ids in (
        ("image", [image.id for image in found.images]),
        ("category", [category.id for category in found.categories]),
        ("file name", [image.file_name for image in found.images]),
    ):
        _refuse(name, f"has the same {kind} more than once", [key for key, count in Counter(ids).items() if count > 1])
    images, categories = ({one.id for one in group} for group in (found.images, found.categories))
    annotations = found.annotations
    _refuse(name, "has boxes in unknown images", {one.image_id for one in annotations} - images)
    _refuse(name, "has boxes of unknown categories", {one.category_id for one in annotations} - categories)
    _refuse(name, "has unknown annotated_category_ids", set(found.annotated_category_ids or ()) - categories)
    outside = [image.file_name for image in found.images if _leads_outside(image.file_name)]
    _refuse(
        name,
        "names files outside the folder of images",
        outside,
        expected="names relative to a folder that is given with --images",
    )


def _leads_outside(file_name: str) -> bool:
    path = PurePosixPath(file_name)
    return path.is_absolute() or ".." in path.parts


def _refuse(name: str, problem: str, found: Iterable[object], *, expected: str = "a valid COCO file") -> None:
    values = list(found)
    if values:
        example = printable_name(str(values[0]))
        raise EvaluationError(f"{name} {problem} ({len(values)}, such as {example}); expected {expected}")
