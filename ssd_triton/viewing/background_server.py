"""Builds the models and starts a Triton server in the background, while the page already answers."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from types import TracebackType

from ssd_triton.config import Config
from ssd_triton.serving.repository.ensure import ensure_built_if_possible
from ssd_triton.serving.server import EmbeddedServer
from ssd_triton.viewing.child import Child


class BackgroundServer:
    """A Triton server that starts in the background during a block; use it as a context manager.

    Args:
        config: The configuration in force.
        variant: Variant of the detector.

    Attributes:
        server: The server, whose addresses are known before it runs.
        failure: Why the server could not be started; None if it has not failed.

    Raises:
        ConfigError: There is no such variant.
    """

    def __init__(self, config: Config, variant: str) -> None:
        self.server = EmbeddedServer(config.model_repository, variant, config.server.for_one_run())
        self.failure: Exception | None = None
        self._config = config
        self._variant = variant
        self._build = Child("building the models")
        self._thread = threading.Thread(target=self._run, name="view-server")
        self._ending = threading.Event()
        self._on_failure: Callable[[], None] | None = None

    def __enter__(self) -> BackgroundServer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ending.set()
        self._build.close()
        self._thread.join()

    def call_on_failure(self, end_page: Callable[[], None]) -> None:
        """Register a function to call when the server fails to start; it is called at once after a failure."""
        self._on_failure = end_page
        if self.failure is not None:
            end_page()

    def _run(self) -> None:
        try:
            self._build.run(_build, self._config, self._variant)
            if self._ending.is_set():
                return
            logging.info("starting tritonserver with %s", self._variant)
            with self.server:
                self._ending.wait()
        except Exception as error:
            self.failure = error
            if self._on_failure is not None:
                self._on_failure()


def _build(config: Config, variant: str) -> None:
    ensure_built_if_possible(config, variant, logging.info)
