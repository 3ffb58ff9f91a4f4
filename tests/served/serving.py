"""``ssd-triton serve`` as a process of its own, as a supervisor or a user starts it."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.conftest import free_ports
from tests.interruptible import Interruptible

SERVE = "from ssd_triton.commands import main; main('serve')"


@dataclass
class Serving:
    """``ssd-triton serve`` with the light detector."""

    process: subprocess.Popen[str]
    ports: Sequence[int]
    log: Path

    @property
    def grpc(self) -> str:
        return f"127.0.0.1:{self.ports[0]}"

    @property
    def http(self) -> str:
        return f"127.0.0.1:{self.ports[1]}"

    @property
    def server_pid(self) -> int:
        [child] = psutil.Process(self.process.pid).children()
        return child.pid

    def has_another_server_than(self, pid: int) -> bool:
        children = psutil.Process(self.process.pid).children()
        return len(children) == 1 and children[0].pid != pid and children[0].name() == "tritonserver"

    def end(self) -> str:
        """End it, and return what it reported."""
        self.process.terminate()
        _, errors = self.process.communicate(timeout=30)
        assert self.process.returncode == 0, errors
        return errors


def start(
    folder: Path, repository: Path, *options: str, ports: Sequence[int] | None = None, program: str = SERVE
) -> Serving:
    """Start it on free ports, or on those; without waiting."""
    ports = ports or free_ports()
    flags = [f"--{name}-port={port}" for name, port in zip(("grpc", "http", "metrics"), ports, strict=True)]
    models = ["--model-repository", str(repository), "--variant", "onnx_fp32", "--no-build"]
    # What waits for a dead process is never answered: its server need not wait for that when it ends.
    quick = ["--set", "server.shutdown_timeout_s=1"]
    command = [sys.executable, "-c", program, *models, *flags, *quick, *options]
    process = Interruptible(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    return Serving(process, ports, folder / "reports/tritonserver.log")


@contextlib.contextmanager
def serving(
    folder: Path, repository: Path, *options: str, ports: Sequence[int] | None = None, program: str = SERVE
) -> Iterator[Serving]:
    """The same for a block, once it is ready."""
    running = start(folder, repository, *options, ports=ports, program=program)
    with running.process as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline().startswith("ready:"), process.communicate()
            yield running
        finally:
            process.terminate()
            process.send_signal(signal.SIGCONT)  # a test that fails may have left it stopped
            process.communicate(timeout=30)


def server_names(tmp: Path) -> list[str]:
    """Names of the servers whose folders lie in a folder for temporary files: their shared memory begins with them."""
    return [folder.name for folder in tmp.glob("ssd-triton-*")]


def server_regions(names: Sequence[str]) -> list[Path]:
    """Shared memory that is left of servers, as files."""
    return [region for name in names for region in Path("/dev/shm").glob(f"{name}*")]


def wait_until(condition: Callable[[], bool], timeout_s: float = 30) -> None:
    """Wait for a condition, and fail when it takes longer."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.05)
