"""Runs the real ``perf_analyzer``, and reads its figures.

The wheel ``tritonclient[all]`` contains the program. It links to ``libb64.so.0d`` and ``libcudart.so.12``, which the
wheel ``nvidia-pytriton`` contains under other names: a folder of links makes it run without system packages.
"""

from __future__ import annotations

import base64
import csv
import importlib.util
import json
import os
import re
import shlex
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ssd_triton.common.errors import UserError
from ssd_triton.common.processes import end_group

Protocol = Literal["grpc", "http"]
SharedMemory = Literal["none", "system", "cuda"]

_LIBRARIES = {"libb64.so.0d": "libb64-*.so.0d", "libcudart.so.12": "libcudart-*.so.12*"}
_MICROSECONDS_PER_MS = 1000.0
_BYTES_PER_MIB = 2.0**20
STABILITY_PERCENT = 30
"""How far three windows may differ. Wide enough for shared machines, so compare only what was measured in turns."""
_UNSTABLE = "Failed to obtain stable measurement"
_PARTS_OF_LATENCY = (
    "Client Send",
    "Network+Server Send/Recv",
    "Server Queue",
    "Server Compute Input",
    "Server Compute Infer",
    "Server Compute Output",
    "Client Recv",
)
"""Columns of the verbose report that add up to the mean latency."""
_SHM = Path("/dev/shm")  # noqa: S108 - where system shared memory is, not a temporary file
_END_S = 5.0
"""Time for an interrupted ``perf_analyzer`` to receive its last answers and free its shared memory."""


class PerfAnalyzerError(UserError):
    """``perf_analyzer`` is missing, or could not measure."""


class UnstableError(PerfAnalyzerError):
    """No three windows in a row agreed, so there is no figure."""


@dataclass(frozen=True)
class Load:
    """A load: model, images, pace and duration."""

    model: str
    url: str
    elements: Sequence[Mapping[str, bytes]]
    """Batch elements, sent in turn; each has the content of every input: raw bytes, or see :func:`bytes_element`."""
    concurrency: int
    """Requests in flight at once; with ``request_rate``, at most."""
    requests: int
    """Requests in a measurement window; the figures cover the last three windows, once they agree."""
    window_s: float | None = None
    """Length of a measurement window, instead of ``requests``."""
    batch: int = 1
    """Images in a request."""
    protocol: Protocol = "grpc"
    """Protocol of ``url``."""
    shared_memory: SharedMemory = "none"
    """Kind of shared memory for tensors; ``none`` sends them over the connection."""
    request_rate: float | None = None
    """Requests a second at even intervals, while at most ``concurrency`` of them are unanswered."""
    shapes: Mapping[str, Sequence[int]] = field(default_factory=dict)
    """Shapes, without the batch, of inputs with open dimensions."""
    outputs: Sequence[str] = ()
    """Names of the outputs, by which shared memory is found if ``perf_analyzer`` must be killed."""
    metrics_url: str | None = None
    """``host:port/metrics`` of the server, for figures of the GPU."""
    stability_percent: float = STABILITY_PERCENT
    max_trials: int = 8
    """Number of windows after which a load counts as unstable."""


@dataclass(frozen=True)
class LoadFigures:
    """Figures of one load, from its stable windows."""

    images_per_s: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    mean_ms: float
    """Mean latency seen by the client."""
    gpu_utilization: float | None = None
    """In [0, 1], of the busiest GPU; None where the server reports none."""
    gpu_memory_mib: float | None = None
    """Largest memory in use on a GPU."""


def bytes_element(content: bytes) -> bytes:
    """Serialize one element of a BYTES tensor: its length, 32 bits little-endian, and its content."""
    return struct.pack("<I", len(content)) + content


def measure(load: Load, *, timeout_s: float, keep: Path | None = None) -> LoadFigures:
    """Send a load until three windows agree within ``stability_percent``.

    Args:
        load: The load to send.
        timeout_s: Time limit of the whole measurement, seconds.
        keep: Folder for ``report.csv``, the program's output, and the command line; None keeps nothing.

    Raises:
        UnstableError: The windows never agreed.
        PerfAnalyzerError: The program is missing, failed (with its own reason), or exceeded the time limit.
    """
    with tempfile.TemporaryDirectory(prefix="perf-analyzer-") as folder, _program() as (binary, environment):
        data, report = Path(folder) / "data.json", Path(folder) / "report.csv"
        data.write_text(json.dumps({"data": [_encoded(load, one) for one in load.elements]}), encoding="utf-8")
        command = [str(binary), *_options(load, data, report)]
        code, printed = _run(command, environment, load, timeout_s)
        if keep is not None:
            keep.mkdir(parents=True, exist_ok=True)
            (keep / "perf_analyzer.txt").write_text(f"$ {shlex.join(command)}\n{printed}", encoding="utf-8")
            if report.is_file():
                shutil.copy(report, keep / "report.csv")
        if _UNSTABLE in printed:
            raise UnstableError(f"no stable measurement within {load.max_trials} windows")
        if code != 0 or not report.is_file():
            reason = re.sub(r"\s+", " ", printed.strip())[-300:]
            raise PerfAnalyzerError(f"perf_analyzer failed for {load.model}: {reason}")
        return _read(report)


def _encoded(load: Load, element: Mapping[str, bytes]) -> dict[str, dict[str, object]]:
    return {
        name: {
            "b64": base64.b64encode(content).decode(),
            **({"shape": list(load.shapes[name])} if name in load.shapes else {}),
        }
        for name, content in element.items()
    }


def _options(load: Load, data: Path, report: Path) -> list[str]:
    rate = load.request_rate
    # A thread sends its next request only after an answer, and by default the program starts just four threads.
    pace = (
        ("--concurrency-range", str(load.concurrency))
        if rate is None
        else ("--request-rate-range", f"{rate:.4f}", "--max-threads", str(load.concurrency))
    )
    window = (
        ("--measurement-mode", "count_windows", "--measurement-request-count", str(load.requests))
        if load.window_s is None
        else ("--measurement-mode", "time_windows", "--measurement-interval", str(int(load.window_s * 1e3)))
    )
    options = [
        *("-m", load.model, "-u", load.url, "-i", load.protocol, "-b", str(load.batch), "--input-data", str(data)),
        *(*pace, *window, "--percentile", "95", "-f", str(report), "--verbose-csv"),
        *("--stability-percentage", f"{load.stability_percent:g}", "--max-trials", str(load.max_trials)),
    ]
    if load.shared_memory != "none":
        options += ["--shared-memory", load.shared_memory]
    if load.metrics_url is not None:
        options += ["--collect-metrics", "--metrics-url", load.metrics_url]
    return options


def _run(command: Sequence[str], environment: Mapping[str, str], load: Load, timeout_s: float) -> tuple[int, str]:
    """Run the program; return its exit code and output. It never outlives this call, nor does its shared memory."""
    # A new session: Ctrl-C reaches only this process, which then ends the program in order.
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    try:
        printed, _ = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        raise PerfAnalyzerError(f"perf_analyzer took longer than {timeout_s:g} s for {load.model}") from None
    finally:
        if process.poll() is None:
            _end(process, load)
    return process.returncode, printed


def _end(process: subprocess.Popen[str], load: Load) -> None:
    try:
        end_group(process, _END_S, signal.SIGINT)
    finally:
        if process.returncode == -signal.SIGKILL and load.shared_memory == "system":
            inputs = [f"{name}_*" for element in load.elements for name in element]
            for pattern in {*inputs, *load.outputs}:
                for region in _SHM.glob(pattern):
                    region.unlink(missing_ok=True)


def _read(report: Path) -> LoadFigures:
    with report.open(encoding="utf-8", newline="") as file:
        [row] = csv.DictReader(file)

    def latency_ms(name: str) -> float:
        return float(row[f"{name} latency"]) / _MICROSECONDS_PER_MS

    memory_bytes = _largest(row.get("Max GPU Memory Usage"))
    return LoadFigures(
        float(row["Inferences/Second"]),
        latency_ms("p50"),
        latency_ms("p95"),
        latency_ms("p99"),
        mean_ms=sum(float(row[part]) for part in _PARTS_OF_LATENCY) / _MICROSECONDS_PER_MS,
        gpu_utilization=_largest(row.get("Avg GPU Utilization")),
        gpu_memory_mib=None if memory_bytes is None else memory_bytes / _BYTES_PER_MIB,
    )


def _largest(figures: str | None) -> float | None:
    """Return the largest value in ``GPU-uuid:value;GPU-uuid:value;``; None if there is none."""
    values = [float(part.rsplit(":", 1)[1]) for part in (figures or "").split(";") if ":" in part]
    return max(values, default=None)


@contextmanager
def _program() -> Iterator[tuple[Path, dict[str, str]]]:
    """Give the path of the program, and an environment in which it finds its libraries."""
    beside_python = Path(sys.executable).parent / "perf_analyzer"
    found = beside_python if beside_python.is_file() else shutil.which("perf_analyzer")
    if found is None:
        raise PerfAnalyzerError("perf_analyzer not found: install it with \"pip install 'tritonclient[all]==2.51.0'\"")
    with tempfile.TemporaryDirectory(prefix="perf-analyzer-libraries-") as links:
        spec = importlib.util.find_spec("pytriton")
        if spec is not None and spec.origin is not None:
            folder = Path(spec.origin).parents[1] / "nvidia_pytriton.libs"
            for name, pattern in _LIBRARIES.items():
                for library in folder.glob(pattern):
                    (Path(links) / name).symlink_to(library)
        path = os.pathsep.join(filter(None, (os.environ.get("LD_LIBRARY_PATH"), links)))
        yield Path(found), {**os.environ, "LD_LIBRARY_PATH": path}


def check_installed() -> None:
    """Raise PerfAnalyzerError, which says how to install it, if there is no ``perf_analyzer``."""
    with _program():
        pass
