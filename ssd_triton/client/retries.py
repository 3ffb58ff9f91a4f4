"""Retries of a request after an error that may pass."""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from ssd_triton.client.errors import (
    BackendProcessDiedError,
    ClientError,
    DeadlineExceededError,
    ServerNotReadyError,
    ServerOverloadedError,
    ServerStoppingError,
    ServerUnreachableError,
    SharedMemoryForgottenError,
    SpoiledBatchError,
)

Result = TypeVar("Result")
_RETRIES = 3
_RETRIES_WHILE_STOPPING = 10
"""About six seconds: with two replicas, every other try may reach the one that is stopping, until it is gone."""
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 1.0
_MAY_PASS = (
    ServerUnreachableError,
    ServerNotReadyError,
    ServerOverloadedError,
    SharedMemoryForgottenError,
    SpoiledBatchError,
)
"""Errors that may be gone a moment later."""
_MAY_PASS_WITH_A_RESTART = (*_MAY_PASS, DeadlineExceededError, BackendProcessDiedError)


class Retries:
    """Decides when a failed request is sent again, and counts the retries.

    Attributes:
        count: Requests sent again so far.
    """

    def __init__(self, timeout_s: float, retry_s: float | None) -> None:
        """Set the limits.

        Args:
            timeout_s: Limit of one try with ``retry_s``; limit of all tries together without it.
            retry_s: Limit of all tries together, long enough for a restart of the server; None for a few quick retries.
        """
        self.count = 0
        self._timeout_s = timeout_s
        self._total_s = timeout_s if retry_s is None else retry_s
        self._through_restart = retry_s is not None
        self._lock = threading.Lock()
        self._stopped = threading.Event()

    def stop(self) -> None:
        """End all pauses; from now on every error is final."""
        self._stopped.set()

    def run(self, send: Callable[[float], Result]) -> Result:
        """Call ``send`` with the seconds that one try may take, until it succeeds, fails for good or runs out of time.

        Raises:
            ClientError: The error of the last try.
        """
        deadline_s = time.monotonic() + self._total_s
        pauses_s = (min(_FIRST_PAUSE_S * 2**doubled, _LONGEST_PAUSE_S) for doubled in itertools.count())
        for retries_so_far, longest_pause_s in enumerate(pauses_s):
            left_s = deadline_s - time.monotonic()
            try:
                return send(self._timeout_s if self._through_restart else left_s)
            except ClientError as error:
                pause_s = self._pause_s(error, retries_so_far, longest_pause_s, deadline_s - time.monotonic())
                if pause_s is None:
                    raise
            with self._lock:
                self.count += 1
            self._stopped.wait(pause_s)
        raise AssertionError("the loop above returns or raises")

    def _pause_s(self, error: ClientError, retries_so_far: int, longest_pause_s: float, left_s: float) -> float | None:
        """Return the pause before the next try; None if the error is final."""
        limit = _RETRIES_WHILE_STOPPING if isinstance(error, ServerStoppingError) else _RETRIES
        if not isinstance(error, _MAY_PASS_WITH_A_RESTART if self._through_restart else _MAY_PASS):
            return None
        if retries_so_far >= limit and not self._through_restart:
            return None
        pause_s = longest_pause_s * random.uniform(0.5, 1.0)  # noqa: S311 - spreads clients, hides nothing
        if self._through_restart:
            pause_s = min(pause_s, left_s)  # the last try comes when the time ends, not earlier
        return None if self._stopped.is_set() or not 0 < pause_s <= left_s else pause_s
