"""Running the real ``perf_analyzer``, and reading what it measured.

The wheel ``tritonclient[all]`` carries the program. It links to ``libb64.so.0d`` and ``libcudart.so.12``, which the
wheel ``nvidia-pytriton`` brings under names of its own: a folder of links makes it run without system packages.
"""

from __future__ import annotations

import base64
import csv
import importlib.util
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ssd_triton.errors import UserError

_LIBRARIES = {"libb64.so.0d": "libb64-*.so.0d", "libcudart.so.12": "libcudart-*.so.12*"}
_MICROSECONDS_PER_MS = 1000.0
STABILITY_PERCENT = 30
"""How far three windows may lie apart. Wide, for shared machines: what is compared must be measured in turns."""


class PerfAnalyzerError(UserError):
    """``perf_analyzer`` is missing, or could not measure."""


@dataclass(frozen=True)
class Load:
    """What is sent: to which model, at which concurrency, for how long."""

    model: str
    url: str
    elements: Sequence[Mapping[str, bytes]]
    """Batch elements, sent in turn; each has the content of every input: raw bytes, or see :func:`bytes_element`."""
    concurrency: int
    requests: int
    """Requests in a measurement window; the figures are those of the last three windows, once they agree."""


@dataclass(frozen=True)
class Measurement:
    """Figures of one load, of the stable windows."""

    images_per_s: float
    p50_ms: float
    p95_ms: float
    p99_ms: float


def bytes_element(content: bytes) -> bytes:
    """One element of a BYTES tensor as Triton sends it: its length, 32 bits little-endian, and its content."""
    return struct.pack("<I", len(content)) + content


def measure(load: Load, *, timeout_s: float) -> Measurement:
    """Send a load over gRPC until three windows agree within :data:`STABILITY_PERCENT`.

    Raises:
        PerfAnalyzerError: The program is missing or failed (with its own reason), or the time was not enough.
    """
    with tempfile.TemporaryDirectory(prefix="perf-analyzer-") as folder, _program() as (binary, environment):
        data, report = Path(folder) / "data.json", Path(folder) / "report.csv"
        elements = [
            {name: {"b64": base64.b64encode(content).decode()} for name, content in element.items()}
            for element in load.elements
        ]
        data.write_text(json.dumps({"data": elements}), encoding="utf-8")
        command = [
            *(str(binary), "-m", load.model, "-u", load.url, "-i", "grpc", "--input-data", str(data)),
            *("--concurrency-range", str(load.concurrency), "--percentile", "95", "-f", str(report)),
            *("--measurement-mode", "count_windows", "--measurement-request-count", str(load.requests)),
            *("--stability-percentage", f"{STABILITY_PERCENT}", "--max-trials", "8"),
        ]
        try:
            result = subprocess.run(
                command, env=environment, capture_output=True, text=True, timeout=timeout_s, check=False
            )
        except subprocess.TimeoutExpired:
            raise PerfAnalyzerError(f"perf_analyzer took longer than {timeout_s:g} s for {load.model}") from None
        if result.returncode != 0 or not report.is_file():
            reason = re.sub(r"\s+", " ", (result.stderr or result.stdout).strip())[-300:]
            raise PerfAnalyzerError(f"perf_analyzer failed for {load.model}: {reason}")
        return _read(report)


def _read(report: Path) -> Measurement:
    with report.open(encoding="utf-8", newline="") as file:
        [row] = csv.DictReader(file)

    def latency_ms(name: str) -> float:
        return float(row[f"{name} latency"]) / _MICROSECONDS_PER_MS

    return Measurement(float(row["Inferences/Second"]), latency_ms("p50"), latency_ms("p95"), latency_ms("p99"))


@contextmanager
def _program() -> Iterator[tuple[Path, dict[str, str]]]:
    """The program, and an environment in which it finds its libraries."""
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
