"""Progress bars on stderr."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")


def progress(items: Iterable[Item], *, total: int | None, description: str, unit: str) -> Iterator[Item]:
    """Iterate with a progress bar on stderr, which is shown only on a terminal."""
    bar: tqdm[Item] = tqdm(items, total=total, desc=description, unit=f" {unit}", disable=None, smoothing=0.1)
    yield from bar


def note(line: str) -> None:
    """Print a line on stderr, above a progress bar if there is one."""
    tqdm.write(line, file=sys.stderr)
