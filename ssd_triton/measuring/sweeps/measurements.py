"""Keeps the measurements of a sweep in a journal, and reads them to resume or to report."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from ssd_triton.common.files import relative_to_cwd
from ssd_triton.common.journal import Journal, Record, damaged, open_journal, read_records
from ssd_triton.common.report import ReportFolder
from ssd_triton.measuring.sweeps.errors import SweepError
from ssd_triton.measuring.sweeps.server_statistics import Stage
from ssd_triton.measuring.sweeps.sweep_file import Point

MEASUREMENTS = "measurements.jsonl"
FACTS = "sweep.json"
Status = Literal["ok", "unstable", "failed"]


@dataclass(frozen=True)
class Measurement:
    """One measurement in one round. Figures are 0 unless ``status`` is ``ok``.

    Attributes:
        point: What was measured.
        round: Number of the round, from 1.
        status: ``ok``; ``unstable``: the windows never agreed; ``failed``: no figure, retried when the sweep resumes.
        note: Reason why it is not ``ok``.
        request_rate: Requests sent a second, for a load at even intervals.
        images_per_s: Throughput.
        mean_ms: Mean latency seen by the client; its percentiles are ``p50_ms``, ``p95_ms``, ``p99_ms``.
        cpu_ms: CPU time of the server's processes for an image; only if the sweep started the server.
        gpu_utilization: Utilisation of the GPU in [0, 1], if there is one.
        gpu_memory_mib: Memory in use on the GPU.
        stages: Times by model, from the server's counters.
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
    cpu_ms: float | None = None
    gpu_utilization: float | None = None
    gpu_memory_mib: float | None = None
    stages: tuple[Stage, ...] = ()


class SweepFolder:
    """The folder of one sweep's results; use it as a context manager.

    Attributes:
        measurements: All measurements that have a figure or were unstable; failed ones will be retried.

    Raises:
        JournalError: On entry: the folder holds results of another sweep, machine or model. When adding: the file
            cannot be written, for example on a full disk.
    """

    def __init__(self, folder: Path, fingerprint: Mapping[str, Any], *, restart: bool = False) -> None:
        """Prepare; nothing is read or written yet.

        Args:
            folder: Folder of the results.
            fingerprint: JSON values that all results have in common.
            restart: Whether to drop existing results.
        """
        self._folder, self._fingerprint, self._restart = folder, fingerprint, restart
        self.measurements: list[Measurement] = []
        self._facts: dict[str, Any] = {}
        self._journal: Journal

    def __enter__(self) -> SweepFolder:
        path = self._folder / MEASUREMENTS
        self._journal = open_journal(path, self._fingerprint, restart=self._restart)
        kept = _latest(path, self._journal.records())
        self.measurements = [one for one in kept if one.status != "failed"]
        if self.measurements:
            self._facts = read_facts(self._folder)
        self.write_facts({})
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._journal.__exit__(kind, error, traceback)

    def add(self, measurement: Measurement) -> None:
        """Append a measurement to the journal."""
        self._journal.append(asdict(measurement))
        self.measurements.append(measurement)

    def write_facts(self, facts: Mapping[str, Any]) -> None:
        """Write facts about the figures (sweep, machine, versions), in addition to existing ones."""
        self._facts.update(facts)
        write_facts(self._folder, self._facts)


def write_facts(folder: Path, facts: Mapping[str, Any]) -> None:
    """Write the facts about the results of a folder."""
    ReportFolder(folder).json(FACTS, facts)


def read_facts(folder: Path) -> dict[str, Any]:
    """Read the facts about the results of a folder.

    Raises:
        SweepError: The folder has no results.
    """
    try:
        facts: dict[str, Any] = json.loads((folder / FACTS).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _no_results(folder, str(error)) from error
    return facts


def read_measurements(folder: Path) -> list[Measurement]:
    """Read the measurements of a folder, in the order in which they were first made.

    Raises:
        SweepError: There are none.
        JournalError: They are damaged.
    """
    path = folder / MEASUREMENTS
    if not path.is_file():
        raise _no_results(folder, f"no {MEASUREMENTS}")
    return _latest(path, read_records(path))


def _latest(path: Path, records: Iterable[Record]) -> list[Measurement]:
    """Return the last measurement of each point and round, since a failed one may have been retried."""
    latest: dict[tuple[Point, int], Measurement] = {}
    for number, record in enumerate(records, start=2):
        try:
            point, stages = Point(**record["point"]), tuple(Stage(**stage) for stage in record["stages"])
            latest[point, record["round"]] = Measurement(**{**record, "point": point, "stages": stages})
        except (KeyError, TypeError) as error:
            raise damaged(path, number, error) from None
    return list(latest.values())


def _no_results(folder: Path, reason: str) -> SweepError:
    return SweepError(f"no results of a sweep in {relative_to_cwd(folder)} ({reason}): run 'ssd-triton sweep' first")
