"""Runs HAProxy with the configuration in ``deploy/proxy``, in front of two replicas on this machine."""

from __future__ import annotations

import csv
import io
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from ssd_triton.common.errors import ServerError
from ssd_triton.common.files import SHIPPED
from ssd_triton.common.processes import end_group

CONFIG = SHIPPED / "deploy" / "proxy" / "haproxy.cfg"
REPLICAS = ("replica1", "replica2")
"""Names of the servers in the configuration."""
_BACKEND = "replicas"
_POLL_S = 0.05
_STOP_TIMEOUT_S = 10.0
_SYSTEM_FOLDERS = "/usr/sbin:/usr/local/sbin"


def find_haproxy() -> Path | None:
    """Find HAProxy's binary, also in folders that are only on root's PATH; None if it is not installed."""
    found = shutil.which("haproxy", path=f"{os.environ.get('PATH', '')}:{_SYSTEM_FOLDERS}")
    return Path(found) if found else None


def replica_statistics(admin_socket: Path) -> list[dict[str, str]]:
    """Return HAProxy's statistics of each replica for each protocol, by column name.

    Raises:
        OSError: HAProxy does not listen on the socket.
    """
    rows = csv.DictReader(io.StringIO(_ask(admin_socket, "show stat").removeprefix("# ")))
    return [row for row in rows if row["svname"] in REPLICAS]


def _ask(admin_socket: Path, command: str) -> str:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(_STOP_TIMEOUT_S)
        connection.connect(str(admin_socket))
        connection.sendall(f"{command}\n".encode())
        with connection.makefile(encoding="utf-8") as answer:
            return answer.read()


class Proxy:
    """HAProxy in front of two replicas, controlled through its admin socket.

    Use it as a context manager: the block begins once both replicas have passed their health check.

    Raises:
        ServerError: On entry: HAProxy is not installed or does not start, or a replica is not healthy in time.
    """

    def __init__(self, listen: str, replicas: Sequence[str], *, startup_timeout_s: float = 30.0) -> None:
        """Prepare; nothing is started yet.

        Args:
            listen: ``host:port`` for gRPC.
            replicas: ``host:port`` of each replica's gRPC endpoint, in the order of :data:`REPLICAS`.
            startup_timeout_s: Time limit for both replicas to become healthy.
        """
        self.listen = listen
        self._replicas = dict(zip(REPLICAS, replicas, strict=True))
        self._startup_timeout_s = startup_timeout_s

    def __enter__(self) -> Proxy:
        binary = find_haproxy()
        if binary is None:
            raise ServerError("haproxy is not installed: apt install haproxy (2.6 or newer)")
        self._folder = Path(tempfile.mkdtemp(prefix="ssd-proxy-"))
        self._admin_socket = self._folder / "admin"
        addresses = {f"SSD_REPLICA_{number}": url for number, url in enumerate(self._replicas.values(), start=1)}
        plain = {"SSD_LISTEN": self.listen, "SSD_PLAIN_TEXT": "1"}
        environment = {**plain, "SSD_ADMIN_SOCKET": str(self._admin_socket), **addresses}
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [binary, "-db", "-f", CONFIG],
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            self._wait_healthy()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop()

    def check_result(self, replica: str) -> str:
        """Return the result of the last health check in HAProxy's codes: ``L7OK``, ``L7TOUT``, ``L4CON``, ..."""
        return self._statistics()[replica]["check_status"].removeprefix("* ")

    def in_flight(self, replica: str) -> int:
        """Return the number of requests that a replica has not answered yet."""
        return int(self._statistics()[replica]["scur"])

    def drain(self, replica: str, *, timeout_s: float) -> None:
        """Send a replica no more requests, and wait until it has answered those in flight.

        Raises:
            ServerError: It still has some after ``timeout_s``.
        """
        _ask(self._admin_socket, f"set server {_BACKEND}/{replica} state drain")
        deadline_s = time.monotonic() + timeout_s
        while (count := self.in_flight(replica)) > 0:
            if time.monotonic() > deadline_s:
                raise ServerError(f"{replica} still has {count} requests in flight after {timeout_s:g} s: wait longer")
            time.sleep(_POLL_S)

    def _wait_healthy(self) -> None:
        deadline_s = time.monotonic() + self._startup_timeout_s
        while True:
            if self._process.poll() is not None:
                log = " ".join((self._folder / "log").read_text(encoding="utf-8", errors="replace").split())
                raise ServerError(f"haproxy ended with code {self._process.returncode}: {log}")
            try:
                results = {name: self.check_result(name) for name in REPLICAS}
            except OSError:  # the admin socket is not there yet
                results = {}
            if set(results.values()) == {"L7OK"}:
                return
            if time.monotonic() > deadline_s:
                raise ServerError(f"replicas are not healthy after {self._startup_timeout_s:g} s: {results}")
            time.sleep(_POLL_S)

    def _statistics(self) -> dict[str, dict[str, str]]:
        return {row["svname"]: row for row in replica_statistics(self._admin_socket) if row["pxname"] == _BACKEND}

    def _stop(self) -> None:
        try:
            end_group(self._process, _STOP_TIMEOUT_S)
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)
