"""Measures the stages of a request, with Triton's own counters before and after it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

from ssd_triton.client.transport import Transport
from ssd_triton.common.model_names import DETECTOR, POSTPROCESS, PREPROCESS

Result = TypeVar("Result")

_MEMBERS = {"preprocess": PREPROCESS, "detect": DETECTOR, "postprocess": POSTPROCESS}
"""Members of the ensemble, by the page's names for them."""
_LOOKS = 4
_PAUSE_S = 0.005
"""Number of readings, and the pause between them: Triton counts a request a moment after it has answered it."""

Counters = dict[str, tuple[int, int, int]]
"""Requests, nanoseconds in the queue and nanoseconds of work, by member."""


def timed(transport: Transport, call: Callable[[], Result]) -> tuple[Result, dict[str, dict[str, float]]]:
    """Make one request, and return the mean times of each member's requests in that period.

    Returns:
        The result; and for each stage ``queue_ms``, ``work_ms`` and the number of ``requests`` that these are the mean
        of, which is 1 on a server without other clients. A stage that Triton has not counted is left out.
    """
    before = _counters(transport)
    result = call()
    for _ in range(_LOOKS):
        after = _counters(transport)
        if all(after[name][0] > before[name][0] for name in after if name in before):
            break
        time.sleep(_PAUSE_S)
    stages = {}
    for name, counts in after.items():
        requests, queue_ns, work_ns = (now - then for now, then in zip(counts, before.get(name, counts), strict=True))
        if requests > 0:
            stages[name] = {
                "queue_ms": round(queue_ns / requests / 1e6, 2),
                "work_ms": round(work_ns / requests / 1e6, 2),
                "requests": requests,
            }
    return result, stages


def _counters(transport: Transport) -> Counters:
    by_model = {entry["name"]: entry["inference_stats"] for entry in transport.statistics()}
    return {name: _read(by_model[model]) for name, model in _MEMBERS.items() if model in by_model}


def _read(statistics: dict[str, Any]) -> tuple[int, int, int]:
    def number(stage: str, key: str) -> int:
        return int(statistics.get(stage, {}).get(key, 0))

    work_ns = sum(number(stage, "ns") for stage in ("compute_input", "compute_infer", "compute_output"))
    return number("success", "count"), number("queue", "ns"), work_ns
