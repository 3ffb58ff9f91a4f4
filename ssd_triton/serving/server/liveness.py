"""Checks that a server really detects: Triton reports ready even when every request waits for a stuck process."""

from __future__ import annotations

import contextlib
import http.client
import json
import threading
import time
from types import TracebackType

from ssd_triton.common.errors import ServerError
from ssd_triton.common.model_names import ENSEMBLE

INTERVAL_S = 30.0
"""Time between two probes; no probe is sent while the server answers other clients."""
STALLED_S = 120.0
"""Time without any answer after which a server counts as stuck: twice what the slowest variant takes for a full batch
on two cores."""
_SMALL_PICTURE = f"P6 8 8 255\n{'0' * 8 * 8 * 3}"
"""A PPM image of 8 x 8 grey pixels, in characters that JSON carries as they are."""
_REQUEST = json.dumps({"inputs": [{"name": "IMAGE", "shape": [1, 1], "datatype": "BYTES", "data": [_SMALL_PICTURE]}]})


class Liveness:
    """Probes a running server with one small picture: at the start, and whenever it has answered no other client.

    Use it as a context manager. Its thread only sends probes; :meth:`check` judges the answers.
    """

    def __init__(self, url: str) -> None:
        """Prepare; nothing is sent yet.

        Args:
            url: ``host:port`` of the HTTP endpoint.
        """
        self._url = url
        self._answered_at_s: float | None = None
        self._started_at_s = time.monotonic()
        self._last_inference_ms = 0
        self._refusal = "no answer"
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._ask, name="liveness", daemon=True)

    def __enter__(self) -> Liveness:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # A probe in flight ends when the server ends.
        self._stopped.set()

    @property
    def has_answered(self) -> bool:
        """Whether the server has answered anything yet."""
        return self._answered_at_s is not None

    def check(self) -> None:
        """Check that the server answers.

        Raises:
            ServerError: No client got an answer for :data:`STALLED_S`.
        """
        last_s = self._started_at_s if self._answered_at_s is None else self._answered_at_s
        if time.monotonic() - last_s > STALLED_S:
            raise ServerError(f"tritonserver has detected nothing for {STALLED_S:.0f} s ({self._refusal})")

    def _ask(self) -> None:
        pause_s = 0.0
        while not self._stopped.wait(pause_s):
            if self._detects() or self._has_answered_others():
                self._answered_at_s = time.monotonic()
                pause_s = INTERVAL_S
                # No probe is needed while other clients get answers.
                while not self._stopped.wait(pause_s) and self._has_answered_others():
                    self._answered_at_s = time.monotonic()
                pause_s = 0.0
            else:
                pause_s = 1.0

    def _detects(self) -> bool:
        """Whether the server answers a request with the small picture; a server error does not count as an answer."""
        status, answer = self._send("POST", f"/v2/models/{ENSEMBLE}/infer", _REQUEST)
        self._refusal = answer[:200]
        # A refusal is an answer too: whoever holds the admin key may have unloaded the model.
        return 0 < status < http.HTTPStatus.INTERNAL_SERVER_ERROR

    def _has_answered_others(self) -> bool:
        """Whether any model has finished a request since the last call; False if the statistics need a key."""
        status, answer = self._send("GET", "/v2/models/stats", None)
        before_ms = self._last_inference_ms
        with contextlib.suppress(ValueError, KeyError):
            if status == http.HTTPStatus.OK:
                self._last_inference_ms = max(model["last_inference"] for model in json.loads(answer)["model_stats"])
        return self._last_inference_ms > before_ms

    def _send(self, method: str, path: str, body: str | None) -> tuple[int, str]:
        """Send a request; return status and body, or 0 and the reason if nothing answers."""
        connection = http.client.HTTPConnection(self._url, timeout=STALLED_S / 4)
        try:
            connection.request(method, path, body)
            response = connection.getresponse()
            return response.status, response.read().decode(errors="replace")
        except (OSError, http.client.HTTPException) as error:
            return 0, str(error) or type(error).__name__
        finally:
            connection.close()
