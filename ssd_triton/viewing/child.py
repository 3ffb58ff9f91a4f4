"""Runs long work in a child process, so that the page keeps answering and can abort the work."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from typing import Any

from ssd_triton.common.errors import UserError


class Child:
    """Runs one function at a time in a child process; threads may share it.

    Args:
        what: What the work is, for the message when it fails.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._process: BaseProcess | None = None
        self._working = threading.Lock()
        self._closed = False

    def run(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Call a module-level function with picklable arguments, and wait for its end; do nothing after :meth:`close`.

        Raises:
            UserError: The function failed; the log says why.
        """
        with self._working:
            if self._closed:
                return
            process = multiprocessing.get_context("spawn").Process(target=_call, args=(function, arguments))
            self._process = process
            process.start()
            process.join()
            if process.exitcode and not self._closed:
                raise UserError(f"{self._what} failed: see the log")

    def close(self) -> None:
        """Abort the work; the files that it writes appear whole or not at all."""
        self._closed = True
        process = self._process
        if process is not None and process.pid is not None and process.is_alive():
            os.kill(process.pid, signal.SIGINT)


def _call(function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        function(*arguments)
    except UserError as error:
        logging.error("%s", error)  # noqa: TRY400 - a user's error has no traceback
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
