"""Keeping several requests under way while their answers are used in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def submit_ahead(
    items: Iterable[Item], submit: Callable[[Item], Future[Result]], in_flight: int
) -> Iterator[tuple[Item, Future[Result]]]:
    """Yield items with their futures in order, the next ``in_flight`` - 1 being under way meanwhile.

    What was submitted and not yet yielded is cancelled when the iteration ends early.
    """
    under_way: deque[tuple[Item, Future[Result]]] = deque()
    try:
        for item in items:
            under_way.append((item, submit(item)))
            if len(under_way) >= in_flight:
                yield under_way.popleft()
        while under_way:
            yield under_way.popleft()
    finally:
        for _, future in under_way:
            future.cancel()
