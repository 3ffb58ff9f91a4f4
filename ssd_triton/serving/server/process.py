"""A Triton server as a child process that is never left behind."""

from __future__ import annotations

import http.client
import logging
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Literal

import psutil

from ssd_triton.common.errors import ServerError
from ssd_triton.common.interrupts import interrupts_deferred
from ssd_triton.common.processes import end_group
from ssd_triton.config import ServerConfig
from ssd_triton.serving.repository.repository import ModelRepository
from ssd_triton.serving.server.backend_processes import backend_processes, is_alive
from ssd_triton.serving.server.installation import TritonInstallation, find_triton
from ssd_triton.serving.server.options import server_options
from ssd_triton.serving.server.protection import exposure_warning, plain_text_host

_ERROR_LINE = re.compile(r"^E\d{4} \S+ \d+ [^\]]+\] (?P<text>.*)$")
"""Triton's log: level and date, time, process, source position, text."""
_FAILED_MODEL = re.compile(r"^\|\s*(?P<model>\S+)\s*\|\s*\d+\s*\|\s*UNAVAILABLE: (?P<reason>.*?)\s*\|$")
"""A row of the table that Triton prints once it has tried to load every model."""
_HARMLESS = re.compile(r"NVML|DCGM|nvidia-smi|pinned memory|CUDA driver|CudaDriverHelper|CUDA memory", re.IGNORECASE)
"""What a server logs on a machine without a GPU."""
_POLL_S = 0.05
_SHM = Path("/dev/shm")  # noqa: S108 - where the python backend's shared memory is, not a temporary file


class EmbeddedServer:
    """A Triton server that serves a model repository on this machine.

    Use it as a context manager: the block begins once every model is ready. After it no process and no shared memory
    is left, however the block ends.

    Raises:
        ConfigError: On entry: the admin key or a file of the TLS settings cannot be read.
        ServerError: On entry: no server, a port is taken, a model does not load (with Triton's own reason), or the
            deadline has passed. :meth:`check` raises it when the server or a process of a model has died.
        ConfigError: The repository has no such variant.
    """

    def __init__(
        self,
        model_repository: Path,
        variant: str,
        config: ServerConfig,
        *,
        log_path: Path | None = None,
    ) -> None:
        """Prepare; nothing is started yet.

        Args:
            model_repository: The folder of models.
            variant: The detector's variant, as ``--model-config-name`` takes it.
            config: Addresses and deadlines; a port of 0 is replaced by a free one.
            log_path: Where Triton's log goes; None keeps it only as long as the server runs.
        """
        self.repository = ModelRepository(model_repository)
        self.repository.detector(variant)
        self.variant = variant
        self.config = config
        self.grpc_port, self.http_port, self.metrics_port = (
            port or free_port(config.host) for port in (config.grpc_port, config.http_port, config.metrics_port)
        )
        self._log_path = log_path
        self._process: subprocess.Popen[bytes] | None = None
        self._backends: dict[str, psutil.Process] = {}

    @property
    def pid(self) -> int:
        """Process id of the running server."""
        return self._running().pid

    @property
    def log_path(self) -> Path:
        """Triton's log."""
        if self._log_path is None:
            raise RuntimeError("the server has not been started")
        return self._log_path

    def url(self, protocol: Literal["grpc", "http"]) -> str:
        """``host:port`` of an endpoint."""
        if protocol == "grpc":
            return f"{self.config.host}:{self.grpc_port}"
        return f"{plain_text_host(self.config)}:{self.http_port}"

    @property
    def metrics_url(self) -> str:
        """Address of the metrics for Prometheus."""
        return f"http://{plain_text_host(self.config)}:{self.metrics_port}/metrics"

    def __enter__(self) -> EmbeddedServer:
        for name in ("grpc_port", "http_port", "metrics_port"):
            _check_port(self.config.host, getattr(self, name), name)
        warning = exposure_warning(self.config)
        if warning:
            logging.warning(warning)
        self._runtime_dir = Path(tempfile.mkdtemp(prefix="ssd-triton-"))
        self._log_path = self._log_path or self._runtime_dir / "tritonserver.log"
        try:
            self._start(find_triton(self._runtime_dir))
            self._wait_ready()
            self._backends = backend_processes(self.pid)
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop()

    def stop(self) -> None:
        """End the server before the block does; requests in flight are answered within ``shutdown_timeout_s``."""
        self._stop()

    def shared_memory(self) -> list[Path]:
        """List the shared memory of its python backend, as files."""
        return list(_SHM.glob(f"{self._runtime_dir.name}*"))

    def check(self) -> None:
        """Check that the server and every process of its python backend are alive.

        Triton restarts neither, and reports itself and the model ready when a process of the backend has died.

        Raises:
            ServerError: One of them has died; for the server, with its last errors.
        """
        code = self._running().poll()
        if code is not None:
            how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
            raise ServerError(f"tritonserver {how}: {self._reason()}")
        dead = [name for name, process in self._backends.items() if not is_alive(process)]
        if dead:
            raise ServerError(
                f"the process of {', '.join(dead)} has died, and Triton does not restart it: start the server again"
            )

    def _start(self, triton: TritonInstallation) -> None:
        shm_prefix = self._runtime_dir.name
        ports = self.config.model_copy(
            update={"grpc_port": self.grpc_port, "http_port": self.http_port, "metrics_port": self.metrics_port}
        )
        options = [
            *server_options(self.repository.path, self.variant, ports),
            f"--backend-config=python,shm-region-prefix-name={shm_prefix}",
            *triton.options,
        ]
        command = [*_die_with_parent(), str(triton.binary), *options]
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        # An interrupt while the server starts would leave it to itself.
        with self.log_path.open("wb") as log, interrupts_deferred():
            # A session of its own: Ctrl-C reaches this process only, which then stops the server in order.
            self._process = subprocess.Popen(
                command,
                env={**os.environ, **triton.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _wait_ready(self) -> None:
        deadline_s = time.monotonic() + self.config.startup_timeout_s
        while not self._is_ready():
            self.check()
            if time.monotonic() > deadline_s:
                raise ServerError(
                    f"tritonserver was not ready after {self.config.startup_timeout_s:g} s: {self._reason()}; "
                    "allow more with startup_timeout_s"
                )
            time.sleep(_POLL_S)

    def _is_ready(self) -> bool:
        connection = http.client.HTTPConnection(plain_text_host(self.config), self.http_port, timeout=1)
        try:
            connection.request("GET", "/v2/health/ready")
            return connection.getresponse().status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def _reason(self) -> str:
        """Give Triton's own words for what went wrong, in one line."""
        lines = self.log_path.read_text(encoding="utf-8", errors="replace").splitlines()
        failed = [match for line in lines if (match := _FAILED_MODEL.match(line))]
        if failed:
            return "; ".join(f"{match['model']}: {match['reason']}" for match in failed)
        errors = [match["text"] for line in lines if (match := _ERROR_LINE.match(line))]
        relevant = [text for text in errors if not _HARMLESS.search(text)]
        return "; ".join(relevant[-3:]) or (lines[-1] if lines else "it wrote no log")

    def _stop(self) -> None:
        """End the server, by force after the time for it has passed; then remove what a killed server leaves."""
        process, self._process = self._process, None
        try:
            if process is not None:
                # The server may be gone while a process of the python backend lives: the group holds all of them.
                end_group(process, self.config.shutdown_timeout_s)
        finally:
            for region in self.shared_memory():
                region.unlink(missing_ok=True)
            shutil.rmtree(self._runtime_dir, ignore_errors=True)

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError("the server is not running: use it as a context manager")
        return self._process


def _die_with_parent() -> list[str]:
    """Give a command prefix by which the kernel ends the server if this process is killed.

    The kernel ties this to the thread that starts the server: only the main thread uses it.
    """
    setpriv = shutil.which("setpriv")
    if setpriv is None or threading.current_thread() is not threading.main_thread():
        return []
    return [setpriv, "--pdeathsig", "TERM"]


def free_port(host: str) -> int:
    """Give a port that nothing listens on at the moment."""
    with socket.socket() as listener:
        listener.bind((host, 0))
        port: int = listener.getsockname()[1]
        return port


def _check_port(host: str, port: int, name: str) -> None:
    """Refuse a port that is taken: another server would answer the readiness check."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as error:
            raise ServerError(
                f"cannot listen on {host}:{port} ({error.strerror}): set another {name}; 0 takes any free one"
            ) from error
