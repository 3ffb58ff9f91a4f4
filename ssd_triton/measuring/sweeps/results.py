"""Results of a sweep: kept line by line as they come, and read again to go on or to report."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from ssd_triton.common.files import atomic_output, relative_to_cwd
from ssd_triton.evaluation.fingerprint import differences
from ssd_triton.measuring.sweeps.errors import SweepError
from ssd_triton.measuring.sweeps.server_statistics import Stage
from ssd_triton.measuring.sweeps.sweep_file import Point

MEASUREMENTS = "measurements.jsonl"
FACTS = "sweep.json"
Status = Literal["ok", "unstable", "failed"]


@dataclass(frozen=True)
class Row:
    """One measurement of one round. Figures are 0 where ``status`` is not ``ok``.

    Attributes:
        point: What was measured.
        round: From 1.
        status: ``unstable``: the windows never agreed; ``failed``: no figure, tried again when the sweep goes on.
        note: Why it is not ``ok``.
        request_rate: Requests a second that were sent, where the load is one of even intervals.
        images_per_s: Throughput.
        mean_ms: Latency that the client sees, with its percentiles ``p50_ms``, ``p95_ms``, ``p99_ms``.
        gpu_utilization: In [0, 1], where there is a GPU.
        gpu_memory_mib: In use.
        stages: By model, from the server's counters.
    """

    point: Point
    round: int
    status: Status = "ok"
    note: str = ""
    request_rate: float | None = None
    images_per_s: float = 0.0
    mean_ms: float = 0.0
    p50_ms: float = 0.0
    p95_ms: float = 0.0
    p99_ms: float = 0.0
    gpu_utilization: float | None = None
    gpu_memory_mib: float | None = None
    stages: tuple[Stage, ...] = ()


class ResultsFolder:
    """The folder of one sweep's results; use it as a context manager.

    Raises:
        SweepError: On entry: the folder holds results of another sweep, or of another machine or model. When writing:
            the disk is full, for one.
    """

    def __init__(self, folder: Path, fingerprint: Mapping[str, Any], *, restart: bool = False) -> None:
        """Prepare; nothing is read or written yet.

        Args:
            folder: Where the results are.
            fingerprint: What all of them must have in common, as JSON values.
            restart: Drop those that are there.
        """
        self.folder = folder
        self._fingerprint = json.loads(json.dumps(fingerprint))
        self._restart = restart
        self.rows: list[Row] = []

    def __enter__(self) -> ResultsFolder:
        path = self.folder / MEASUREMENTS
        if self._restart:
            path.unlink(missing_ok=True)
        if path.is_file():
            changed = differences(read_facts(self.folder).get("fingerprint", {}), self._fingerprint)
            if changed:
                raise SweepError(
                    f"{relative_to_cwd(self.folder)} holds results of something else: {'; '.join(changed[:3])}. "
                    "--restart drops them, --output names another folder"
                )
            self.rows = read_rows(self.folder)
        # Failed measurements are tried again, and what a crash left of a line goes.
        self.rows = [row for row in self.rows if row.status != "failed"]
        try:
            with atomic_output(path) as temporary:
                temporary.write_text("".join(_line(row) for row in self.rows), encoding="utf-8")
            self._file = path.open("a", encoding="utf-8")
        except OSError as error:
            raise self._cannot_write(error) from error
        if not self.rows:
            self.write_facts({})
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()

    def add(self, row: Row) -> None:
        """Keep a measurement."""
        try:
            self._file.write(_line(row))
            self._file.flush()
        except OSError as error:
            raise self._cannot_write(error) from error
        self.rows.append(row)

    def write_facts(self, facts: Mapping[str, Any]) -> None:
        """Keep what the figures belong to, beside the fingerprint."""
        try:
            with atomic_output(self.folder / FACTS) as temporary:
                text = json.dumps({"fingerprint": self._fingerprint, **facts}, indent=1)
                temporary.write_text(text + "\n", encoding="utf-8")
        except OSError as error:
            raise self._cannot_write(error) from error

    def _cannot_write(self, error: OSError) -> SweepError:
        return SweepError(
            f"cannot write to {relative_to_cwd(self.folder)} ({error.strerror}): what was measured before is kept; "
            "make room and run the same command again"
        )


def read_facts(folder: Path) -> dict[str, Any]:
    """What the results of a folder belong to.

    Raises:
        SweepError: The folder has no results.
    """
    try:
        facts: dict[str, Any] = json.loads((folder / FACTS).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SweepError(
            f"no results of a sweep in {relative_to_cwd(folder)} ({error}): run 'python perf/sweep.py' first"
        ) from error
    return facts


def read_rows(folder: Path) -> list[Row]:
    """The measurements of a folder; what a crash left of the last one is left out.

    Raises:
        SweepError: There are none.
    """
    try:
        lines = (folder / MEASUREMENTS).read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise SweepError(
            f"no results of a sweep in {relative_to_cwd(folder)} ({error.strerror}): run 'python perf/sweep.py' first"
        ) from error
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            values = json.loads(line)
        except ValueError:
            if number < len(lines):
                raise SweepError(f"{relative_to_cwd(folder / MEASUREMENTS)}:{number} is damaged: remove it") from None
            break
        values["point"] = Point(**values["point"])
        values["stages"] = tuple(Stage(**stage) for stage in values["stages"])
        rows.append(Row(**values))
    return rows


def _line(row: Row) -> str:
    return json.dumps(asdict(row)) + "\n"
