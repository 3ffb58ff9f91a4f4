"""Records the server's state over the last minutes for the page."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from typing import Any

import anyio.to_thread

from ssd_triton.client.transport import Transport
from ssd_triton.common.errors import UserError
from ssd_triton.serving.status.collect import ServerStatus, collect
from ssd_triton.serving.status.table import to_json

INTERVAL_S = 2.0
"""Time between two samples; each takes some 10 ms."""
_LOOKS = 150
"""Number of samples that are kept: five minutes."""
_TIMEOUT_S = 5.0
_STARTING = "the server is starting; the first time its models are built, which takes a minute or two"


class Monitor:
    """Samples the state of a server at intervals while the page runs.

    Args:
        transport: A connection to the server, for the monitor alone.
        url: The server's address.
        metrics_url: The address of its metrics; None leaves them out.
        starts: Whether the server is started with the page, so that at first it is not expected to answer.
    """

    def __init__(self, transport: Transport, url: str, metrics_url: str | None, *, starts: bool = False) -> None:
        self._transport = transport
        self._url = url
        self._metrics_url = metrics_url
        self._starts = starts
        self._earlier: ServerStatus | None = None
        self._latest: dict[str, Any] = {"problem": "the server has not been asked yet"}
        self._history: deque[dict[str, Any]] = deque(maxlen=_LOOKS)

    def state(self, since: int) -> dict[str, Any]:
        """Return the last sample, and the history after a given sample.

        Args:
            since: Number of the last sample that the page has; 0 for none.

        Returns:
            ``problem``, a message, if the server does not answer, else the output of ``ssd-triton status --json``; and
            ``history``, with rates and mean times between two samples.
        """
        # A page that was open before this process started has numbers that this process has not reached.
        first = since if self._history and since <= self._history[-1]["number"] else 0
        return {**self._latest, "history": [look for look in self._history if look["number"] > first]}

    async def run(self) -> None:
        """Take samples until cancelled."""
        number = 0
        while True:
            number += 1
            look: dict[str, Any] = {"number": number, "time_s": round(time.time(), 1)}
            try:
                status = await anyio.to_thread.run_sync(self._look, abandon_on_cancel=True)
                self._latest = to_json(status)
                look |= _rates(status, self._earlier)
                self._earlier, self._starts = status, False
            except UserError as error:
                problem = _STARTING if self._starts else f"the server does not answer: {error}"
                self._latest = {"problem": problem, "url": self._url}
                self._earlier = None
            except Exception:
                logging.exception("a fault of the page itself, while it looked at the server")
                self._latest = {"problem": "a fault of the page itself: see its log", "url": self._url}
            self._history.append(look)
            await asyncio.sleep(INTERVAL_S)

    def _look(self) -> ServerStatus:
        return collect(self._transport, self._url, metrics_url=self._metrics_url, timeout_s=_TIMEOUT_S)


def _rates(status: ServerStatus, earlier: ServerStatus | None) -> dict[str, Any]:
    before = {model.name: model for model in earlier.models} if earlier else {}
    elapsed_s = status.monotonic_s - earlier.monotonic_s if earlier else None
    models = {}
    for model in status.models:
        if elapsed_s is None or model.name not in before:
            continue
        recent = model.since(before[model.name])
        models[model.name] = {
            "images_per_s": round(recent.images / elapsed_s, 2),
            "refused_per_s": None if recent.refused is None else round(recent.refused / elapsed_s, 2),
            "failed_per_s": round(recent.failed / elapsed_s, 2),
            "queue_ms": recent.mean_ms("queue"),
            "request_ms": recent.mean_ms("request"),
            "pending": model.pending,
        }
    return {"models": models, "machine": status.metrics.machine if status.metrics else {}}
