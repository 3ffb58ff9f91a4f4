"""Runs a server and restarts it when it dies."""

from __future__ import annotations

import collections
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from ssd_triton.common.errors import ServerError
from ssd_triton.config import ServerConfig
from ssd_triton.serving.server.liveness import Liveness
from ssd_triton.serving.server.ports import with_free_ports
from ssd_triton.serving.server.process import EmbeddedServer

WINDOW_S = 600.0
"""Period in which deaths are counted against ``max_restarts``."""
STEADY_S = 30.0
"""A server that dies sooner may die again at once, so its restart is delayed."""
_FIRST_PAUSE_S = 0.25
_LONGEST_PAUSE_S = 30.0
_CHECK_INTERVAL_S = 0.1


class Supervisor:
    """Keeps a server running on the same ports.

    A server is restarted when it or a process of a model has died, or when it has stopped detecting. A server that ran
    for :data:`STEADY_S` is restarted at once, any other after a pause that doubles with each death. The reasons are
    reported, and written to the server's log.
    """

    def __init__(self, model_repository: Path, variant: str, config: ServerConfig, log_path: Path) -> None:
        """Prepare; nothing is started yet.

        Args:
            model_repository: The folder of models.
            variant: The detector's variant.
            config: Addresses, deadlines and ``max_restarts``.
            log_path: File to which Triton's log is appended.
        """
        self._repository, self._variant, self._log_path = model_repository, variant, log_path
        self._config = with_free_ports(config)
        self._deaths_s: collections.deque[float] = collections.deque()
        self._died_at_s: float | None = None
        self._hurried_deaths = 0

    def run(self, report_ready: Callable[[EmbeddedServer], None]) -> NoReturn:
        """Serve until interrupted.

        Args:
            report_ready: Called once, when the first server detects.

        Raises:
            ServerError: The first start failed, or the server has died more often than ``max_restarts`` allows.
            KeyboardInterrupt: Ctrl-C or SIGTERM, after the server has ended.
        """
        while True:
            try:
                self._serve(report_ready)
            except ServerError as error:
                if self._died_at_s is None:
                    raise
                self._pause_after(error)

    def _serve(self, report_ready: Callable[[EmbeddedServer], None]) -> None:
        server = EmbeddedServer(self._repository, self._variant, self._config, log_path=self._log_path)
        with server, Liveness(server.url("http")) as liveness:
            started_s = time.monotonic()
            try:
                while not liveness.has_answered:
                    self._check(server, liveness)
                if self._died_at_s is None:
                    report_ready(server)
                else:
                    logging.info("tritonserver is back after %.1f s", time.monotonic() - self._died_at_s)
                while True:
                    self._check(server, liveness)
            except ServerError as error:
                server.note(str(error))
                if liveness.has_answered:
                    self._died_at_s = time.monotonic()
                    if self._died_at_s - started_s > STEADY_S:
                        self._hurried_deaths = 0
                raise

    def _check(self, server: EmbeddedServer, liveness: Liveness) -> None:
        server.check()
        try:
            liveness.check()
        except ServerError:
            server.abandon()
            raise
        time.sleep(_CHECK_INTERVAL_S)

    def _pause_after(self, error: ServerError) -> None:
        now_s = time.monotonic()
        self._deaths_s.append(now_s)
        while now_s - self._deaths_s[0] > WINDOW_S:
            self._deaths_s.popleft()
        deaths, limit = len(self._deaths_s), self._config.max_restarts
        if deaths > limit:
            raise ServerError(
                f"{error}; not restarted: {deaths} deaths in {WINDOW_S / 60:.0f} minutes, server.max_restarts: {limit}"
            ) from error
        pause_s = min(_FIRST_PAUSE_S * 2**self._hurried_deaths, _LONGEST_PAUSE_S) if self._hurried_deaths else 0.0
        self._hurried_deaths += 1
        logging.warning("%s; restart %d of %d in %g s", error, deaths, limit, pause_s)
        time.sleep(pause_s)
