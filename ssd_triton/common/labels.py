"""Names of the network's classes."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ssd_triton.common.errors import ConfigError, UserError, listing
from ssd_triton.common.files import relative_to_cwd

BACKGROUND = "background"
_IRREGULAR = {"knife": "knives", "mouse": "mice", "sheep": "sheep", "scissors": "scissors", "skis": "skis"}
"""Irregular plurals of COCO's classes."""


def class_name(labels: Sequence[str], class_id: int) -> str:
    """Return the name of a class.

    Raises:
        ConfigError: There are fewer labels than classes, so the labels belong to another model.
    """
    if class_id >= len(labels):
        raise ConfigError(
            f"got class {class_id} from the detector, expected one below {len(labels)}, the number of lines at "
            "labels_path; set labels_path to the labels of the served model"
        )
    return labels[class_id]


def load_labels(path: Path) -> tuple[str, ...]:
    """Read one class name per line; the line number, from 0, is the class id, and line 0 is the background.

    Lines may end as on Windows, and the file may begin with a byte order mark.

    Raises:
        ConfigError: The file is missing or not UTF-8, does not begin with ``background``, has no other class, or has
            an empty, unprintable or repeated name.
    """
    name = relative_to_cwd(path)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise ConfigError(f"cannot read the labels file {name} ({error.strerror}): set labels_path") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{name}: byte {error.start} is not UTF-8: convert the file to UTF-8") from None
    lines = text.replace("\r\n", "\n").removesuffix("\n").split("\n")
    if lines[0] != BACKGROUND or len(lines) < 2:
        raise ConfigError(
            f"{name}: got {lines[0][:40]!r} on the first of {len(lines)} lines, expected '{BACKGROUND}' and then one "
            "class name on each line"
        )
    for number, label in enumerate(lines, 1):
        if not label or label != label.strip() or not label.isprintable():
            raise ConfigError(f"{name}: got {label[:40]!r} on line {number}, expected a class name: correct that line")
    repeated = [label for label, count in Counter(lines).items() if count > 1]
    if repeated:
        raise ConfigError(f"{name}: got '{repeated[0]}' {lines.count(repeated[0])} times, expected each name once")
    return tuple(lines)


def class_ids_of(names: Iterable[str], labels: Sequence[str]) -> frozenset[int]:
    """Return the ids of classes by their names.

    Raises:
        UserError: There is no such class.
    """
    classes, names = labels[1:], tuple(names)
    for name in names:
        if name not in classes:
            nearest = difflib.get_close_matches(name.lower(), classes, n=1, cutoff=0.5)
            hint = f"did you mean '{nearest[0]}'?" if nearest else f"such as {listing(classes)}"
            raise UserError(f"got the class '{name}', expected one of the {len(classes)} in the labels file; {hint}")
    return frozenset(labels.index(name) for name in names)


def counted(counts: Mapping[str, int]) -> str:
    """Format the number of each class, the most frequent first, as in ``2 persons, 1 car``."""
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    return ", ".join(f"{count} {name if count == 1 else _plural(name)}" for name, count in ordered)


def _plural(name: str) -> str:
    if name in _IRREGULAR:
        return _IRREGULAR[name]
    return f"{name}{'es' if name.endswith(('s', 'x', 'z', 'ch', 'sh')) else 's'}"
