"""Keeps several requests in flight and returns their answers in order."""

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
    """Yield items with their futures in order, keeping the next ``in_flight`` - 1 items submitted ahead.

    When the iteration ends early, futures that were not yet yielded are cancelled.

    Args:
        items: Items, taken one by one as they are submitted.
        submit: Starts the work on an item.
        in_flight: Number of futures at once, the yielded one included; at least 1.
    """
    submitted: deque[tuple[Item, Future[Result]]] = deque()
    try:
        for item in items:
            submitted.append((item, submit(item)))
            if len(submitted) >= in_flight:
                yield submitted.popleft()
        while submitted:
            yield submitted.popleft()
    finally:
        for _, future in submitted:
            future.cancel()
