"""Mapping of the model's classes to the categories of an annotation file."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Mapping, Sequence

from ssd_triton.common.errors import listing
from ssd_triton.evaluation.annotations import Category
from ssd_triton.evaluation.errors import EvaluationError

_log = logging.getLogger(__name__)


def match_categories(
    categories: Sequence[Category], labels: Sequence[str], name_map: Mapping[str, str], source: str
) -> dict[int, int]:
    """Find the category of every class that an annotation file has.

    If there are as many categories as classes, they map in the order of their ids, as in NVIDIA DeepLearningExamples
    (``PyTorch/Detection/SSD``, ``ssd/utils.py``), and names that differ are logged. If their names are those of the
    classes, they map by name. Fewer categories also map by name; the other classes of the model have none.

    Args:
        categories: Categories of the annotation file.
        labels: Class names by id, the background first.
        name_map: Label by the name in the file, where they differ.
        source: The file's name, for messages.

    Returns:
        Category ids by class id (1 is the first class).

    Raises:
        EvaluationError: There are more categories than classes; fewer, with an unknown name; or as many, with unknown
            names and names of classes in another order. Or the name map leads from a category to no class.
    """
    classes = list(labels[1:])
    _check_name_map({one.name: name_map[one.name] for one in categories if one.name in name_map}, classes)
    ordered = sorted(categories, key=lambda category: category.id)
    names = [name_map.get(category.name, category.name) for category in ordered]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise EvaluationError(f"{source}: several categories are named {listing(twice)}; correct the name map")
    if len(names) > len(classes):
        raise EvaluationError(
            f"{source}: got {len(names)} categories, expected at most the {len(classes)} classes of the model; set "
            "labels_path to the labels of the model that is served"
        )
    known = [name for name in names if name in classes]
    if len(names) == len(classes) and len(known) < len(names):
        return _by_order(ordered, names, classes, source)
    unknown = [name for name in names if name not in classes]
    if unknown:
        raise EvaluationError(
            f"{source}: no class of the model is named {listing([_with_nearest(name, classes) for name in unknown])}; "
            "give --name-map NAME=LABEL for each"
        )
    return {classes.index(name) + 1: category.id for name, category in zip(names, ordered, strict=True)}


def by_order(categories: Sequence[Category]) -> dict[int, int]:
    """Map class ids to category ids in their sorted order, whatever their names."""
    return dict(enumerate(sorted(category.id for category in categories), start=1))


def _by_order(ordered: Sequence[Category], names: Sequence[str], classes: Sequence[str], source: str) -> dict[int, int]:
    pairs = list(zip(names, classes, strict=True))
    elsewhere = [name for name, label in pairs if name != label and name in classes]
    if elsewhere:
        raise EvaluationError(
            f"{source}: its categories are neither in the order of the model's classes nor all named as they are: "
            f"{listing(elsewhere)} at another place, and no class named "
            f"{listing([_with_nearest(name, classes) for name in names if name not in classes])}; give --name-map "
            "NAME=LABEL for these"
        )
    differing = [f"{name} ({label})" for name, label in pairs if name != label]
    _log.warning(
        "warning: %s: %d categories are taken for the model's classes by their order, under other names: %s",
        source,
        len(differing),
        listing(differing),
    )
    return by_order(ordered)


def _check_name_map(name_map: Mapping[str, str], classes: Sequence[str]) -> None:
    for name, label in name_map.items():
        if label not in classes:
            raise EvaluationError(
                f"the name map leads from '{name}' to {_with_nearest(label, classes)}, expected a name in labels_path"
            )


def _with_nearest(name: str, classes: Sequence[str]) -> str:
    nearest = difflib.get_close_matches(name, classes, n=1, cutoff=0.5)
    return f"'{name}' (nearest: '{nearest[0]}')" if nearest else f"'{name}'"
