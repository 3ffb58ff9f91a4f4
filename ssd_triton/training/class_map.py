"""Mapping of an annotation file's categories to the classes to train."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from ssd_triton.common.errors import listing
from ssd_triton.evaluation.annotations import Category
from ssd_triton.training.errors import TrainingError

LEFT_OUT = 0
"""Class id of a category that is not trained; its objects become background."""


def choose_labels(labels: Sequence[str], chosen: Sequence[str]) -> tuple[str, ...]:
    """The labels to train: all of them, or the background and the chosen ones in the given order.

    Raises:
        TrainingError: A chosen class is unknown or given twice.
    """
    if not chosen:
        return tuple(labels)
    unknown = [name for name in chosen if name not in labels[1:]]
    if unknown:
        raise TrainingError(
            f"--classes: no class is named {listing([_with_nearest(name, labels) for name in unknown])}; expected "
            "names in labels_path"
        )
    if len(set(chosen)) < len(chosen):
        raise TrainingError(f"--classes: got a class twice in {listing(list(chosen))}, expected each once")
    return (labels[0], *chosen)


@dataclass(frozen=True)
class ClassMap:
    """Maps categories to classes by name; several categories may map to one class.

    Attributes:
        labels: Names of the classes to train, the background first.
        known: Accepted names that need not be in ``labels``: all classes, before a subset was chosen.
        name_map: Labels for other names in the data; an empty label leaves a category out.
    """

    labels: Sequence[str]
    known: Collection[str]
    name_map: Mapping[str, str]

    @property
    def names(self) -> set[str]:
        """Every name that a category may have."""
        return {*self.labels, *self.known, *self.name_map}

    def class_ids(self, categories: Sequence[Category], source: str) -> dict[int, int]:
        """The class id of every category.

        Args:
            categories: All categories of the annotation file.
            source: The file's name, for messages.

        Returns:
            By category id; :data:`LEFT_OUT` for categories that are not trained.

        Raises:
            TrainingError: A name is neither known nor mapped, or no category is trained.
        """
        labels = self.labels
        names = {category.id: self.name_map.get(category.name, category.name) for category in categories}
        unknown = sorted({name for name in names.values() if name and name not in self.known and name not in labels})
        if unknown:
            raise TrainingError(
                f"{source}: no class is named {listing([_with_nearest(name, labels) for name in unknown])}; give "
                "--name-map NAME=LABEL for each, or NAME= to leave it out"
            )
        found = {key: labels.index(name) if name in labels[1:] else LEFT_OUT for key, name in names.items()}
        if not any(found.values()):
            raise TrainingError(
                f"{source}: got the categories {listing(sorted(names.values()))}, expected some of the classes to "
                f"train: {listing(list(labels[1:]))}"
            )
        return found


def _with_nearest(name: str, names: Sequence[str]) -> str:
    nearest = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"'{name}' (nearest: '{nearest[0]}')" if nearest else f"'{name}'"
