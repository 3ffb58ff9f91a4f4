"""A Triton server as a child process that always ends with its parent."""

from __future__ import annotations

import http.client
import logging
import os
import re
import resource
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Literal

import psutil

from ssd_triton.client.endpoint import host_port
from ssd_triton.common.errors import ServerError
from ssd_triton.common.interrupts import interrupts_deferred
from ssd_triton.common.processes import end_group
from ssd_triton.config import ServerConfig
from ssd_triton.serving.repository.repository import ModelRepository
from ssd_triton.serving.server.backend_processes import BackendProcesses
from ssd_triton.serving.server.installation import TritonInstallation, find_triton
from ssd_triton.serving.server.leftovers import RuntimeDir, sweep
from ssd_triton.serving.server.log import ServerLog
from ssd_triton.serving.server.options import descriptor_limit, server_options
from ssd_triton.serving.server.ports import check_ports, with_free_ports
from ssd_triton.serving.server.protection import exposure_warning, plain_text_host

_ERROR_LINE = re.compile(r"^E\d{4} \S+ \d+ [^\]]+\] (?P<text>.*)$")
"""An error in Triton's log: level and date, time, process, source position, text."""
_FAILED_MODEL = re.compile(r"^\|\s*(?P<model>\S+)\s*\|\s*\d+\s*\|\s*UNAVAILABLE: (?P<reason>.*?)\s*\|$")
"""A row of the table that Triton prints once it has tried to load every model."""
_HARMLESS = re.compile(r"NVML|DCGM|nvidia-smi|pinned memory|CUDA driver|CudaDriverHelper|CUDA memory", re.IGNORECASE)
"""Errors that a server always logs on a machine without a GPU."""
_ANSWERED = "All models are stopped, unloading models"
"""Line in Triton's log when the last request in flight has been answered, and no new one is accepted."""
_FLUSH_S = 0.5
"""Time after that line for the last answers to leave the server."""
_CRASHING_S = 2.0
"""Time for a crashing server to print its stack and end: its handler may wait for a lock for ever."""
_POLL_S = 0.05
_GUARDED = 'exec 3<&0 </dev/null; (read -r _ <&3; kill -KILL 0) & exec 3<&-; exec "$@"'
"""Shell command that becomes the server. A guard in the server's process group waits until this process ends, in
whatever way, and then kills the group."""
_NO_OPENVINO = "unknown Execution Accelerator 'openvino'"
_WITHOUT_OPENVINO = (
    "onnx_int8 needs an ONNX Runtime backend that was built with OpenVINO: choose --variant onnx_fp32 here"
)


class EmbeddedServer:
    """A Triton server that serves a model repository on this machine.

    Use it as a context manager: the block begins once every model is ready. After the block no process and no shared
    memory is left, however it ends. If this process is killed, the kernel closes a pipe, and a guard kills the server
    with all its processes; the next start removes the folder and the shared memory that are left.

    Raises:
        ConfigError: The repository has no such variant. On entry: the admin key or a file of the TLS settings cannot
            be read.
        ServerError: On entry: there is no server, a port is taken, another server writes to the log, a model does not
            load (with Triton's own reason), or the deadline has passed. :meth:`check` raises it when the server or a
            process of a model has died.
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
            variant: The detector's variant, for ``--model-config-name``.
            config: Addresses and deadlines; a port of 0 is replaced by a free one.
            log_path: File to which Triton's log is appended; None keeps the log only while the server runs.
        """
        self.repository = ModelRepository(model_repository)
        self.repository.detector(variant)
        self.variant = variant
        self.config = with_free_ports(config)
        self._log_path = log_path
        self._log: ServerLog | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._lifeline = -1
        self._backends: BackendProcesses | None = None
        self._died = False

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
        """Return ``host:port`` of an endpoint."""
        if protocol == "grpc":
            return host_port(self.config.host, self.config.grpc_port)
        return host_port(plain_text_host(self.config), self.config.http_port)

    @property
    def metrics_url(self) -> str:
        """Address of the metrics for Prometheus."""
        return f"http://{host_port(plain_text_host(self.config), self.config.metrics_port)}/metrics"

    def __enter__(self) -> EmbeddedServer:
        check_ports(self.config)
        warning = exposure_warning(self.config)
        if warning:
            logging.warning(warning)
        sweep()
        self._backends, self._died = None, False
        self._runtime_dir = RuntimeDir()
        try:
            self._log_path = self._log_path or self._runtime_dir.path / "tritonserver.log"
            self._log = ServerLog(self._log_path)
            self._start(find_triton(self._runtime_dir.path), self._log)
            self._wait_ready()
            self._backends = BackendProcesses(self.pid, may_unload=self.config.model_control)
            self._runtime_dir.claim_python_envs(self.pid)
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop()

    def stop(self) -> None:
        """End the server before the block ends; requests in flight have ``shutdown_timeout_s`` to finish."""
        self._stop()

    def abandon(self) -> None:
        """Skip the wait for requests in flight at the end of the block, for a server that answers none."""
        self._died = True

    def shared_memory(self) -> list[Path]:
        """List the shared memory of the server's python backend, as files."""
        return self._runtime_dir.shared_memory()

    def check(self) -> None:
        """Check that the server and every process of its python backend are alive.

        Triton does not restart a dead backend process, and keeps reporting itself and the model ready. It also keeps
        what it has inflated of a compressed HTTP body that proves to be no request, so its memory is limited.

        Raises:
            ServerError: One of them has died; for the server, with its last errors. The server is then ended without
                waiting for requests in flight, since those of a dead process are never answered. Or the server holds
                more than ``max_memory_mib``; requests in flight are then answered first.
        """
        code = self._running().poll()
        if code is not None:
            self._died = True
            how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
            raise ServerError(f"tritonserver {how}: {self._reason()}")
        if self._log is not None and self._log.seconds_since_crash() > _CRASHING_S:
            self._died = True
            raise ServerError(f"tritonserver crashed and did not end within {_CRASHING_S:g} s: {self._reason()}")
        dead = [] if self._backends is None else self._backends.dead()
        if dead:
            self._died = True
            raise ServerError(f"the process of {', '.join(dead)} has died, and Triton does not restart it")
        held_mib, limit_mib = psutil.Process(self.pid).memory_info().rss >> 20, self.config.max_memory_mib
        if 0 < limit_mib < held_mib:
            raise ServerError(f"tritonserver holds {held_mib} MiB, more than server.max_memory_mib: {limit_mib}")

    def note(self, text: str) -> None:
        """Append a line to the log of the running server."""
        if self._log is not None:
            self._log.note(text)

    def _start(self, triton: TritonInstallation, log: ServerLog) -> None:
        options = [
            *server_options(self.repository.path, self.variant, self.config),
            f"--backend-config=python,shm-region-prefix-name={self._runtime_dir.path.name}",
            *triton.options,
        ]
        command = ["/bin/sh", "-c", _GUARDED, "ssd-triton", str(triton.binary), *options]
        log.note(f"starting tritonserver, variant {self.variant}")
        # An interrupt in the middle of the start would leave an orphaned server.
        with interrupts_deferred():
            reader, self._lifeline = os.pipe()
            output = log.open_pipe()
            try:
                # A new session: Ctrl-C reaches only this process, which then stops the server in order.
                self._process = subprocess.Popen(
                    command,
                    env={**os.environ, **triton.environment},
                    stdin=reader,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            finally:
                os.close(reader)
                os.close(output)
            resource.prlimit(self._process.pid, resource.RLIMIT_NOFILE, descriptor_limit())

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
        connection = http.client.HTTPConnection(plain_text_host(self.config), self.config.http_port, timeout=1)
        try:
            connection.request("GET", "/v2/health/ready")
            return connection.getresponse().status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def _reason(self) -> str:
        """Return Triton's own reason for the failure, in one line."""
        lines = [] if self._log is None else self._log.last_lines()
        failed = [match for line in lines if (match := _FAILED_MODEL.match(line))]
        if failed:
            reasons = "; ".join(f"{match['model']}: {match['reason']}" for match in failed)
            return f"{reasons}; {_WITHOUT_OPENVINO}" if _NO_OPENVINO in reasons else reasons
        errors = [match["text"] for line in lines if (match := _ERROR_LINE.match(line))]
        relevant = [text for text in errors if not _HARMLESS.search(text)]
        return "; ".join(relevant[-3:]) or "it logged no reason"

    def _stop(self) -> None:
        """End the server, by force once its time is up, then remove what a killed server leaves behind.

        A second Ctrl-C or SIGTERM is deferred until this is done, since it could only interrupt the clean-up.
        """
        with interrupts_deferred():
            process, self._process = self._process, None
            try:
                if process is not None:
                    if not self._died:
                        self._let_answer(process)
                    # A process of the python backend may outlive the server, so the whole group is killed.
                    end_group(process, 0)
            finally:
                self._clean_up()

    def _let_answer(self, process: subprocess.Popen[bytes]) -> None:
        """Ask the server to end, and wait until its models have answered the requests that they have begun.

        The wait ends before the server unloads its models, which is of no use and takes three seconds, or fifteen with
        PyTorch.
        """
        process.terminate()
        deadline_s = time.monotonic() + self.config.shutdown_timeout_s
        while process.poll() is None and time.monotonic() < deadline_s:
            if self._log is not None and any(_ANSWERED in line for line in self._log.last_lines()):
                with suppress(subprocess.TimeoutExpired):
                    process.wait(_FLUSH_S)
                return
            time.sleep(_POLL_S)

    def _clean_up(self) -> None:
        lifeline, self._lifeline = self._lifeline, -1
        log, self._log = self._log, None
        if lifeline >= 0:
            os.close(lifeline)
        if log is not None:
            log.close()
        self._runtime_dir.remove()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError("the server is not running: use it as a context manager")
        return self._process
