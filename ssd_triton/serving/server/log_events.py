"""Extracts the backends' JSON lines about refused and failed requests from Triton's log."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

_PREFIX = re.compile(r"^[IWE]\d{4} [^\]]*\] |^\d{4}-\d\d-\d\dT\S+ [A-Z]+ [^\]]*\] ")
"""Triton's prefix of each line, in either of its log formats."""


def read_events(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Yield the JSON objects with an ``event`` in lines of a server's log, and skip everything else.

    Triton 24 writes the text of a line as a JSON string; other versions write it unchanged.
    """
    for line in lines:
        text = _PREFIX.sub("", line, count=1)
        if text == line or '"event' not in text.replace("\\", ""):
            continue
        try:
            value = json.loads(text)
            value = json.loads(value) if isinstance(value, str) else value
        except ValueError:
            continue
        if isinstance(value, dict) and "event" in value:
            yield value
