"""The ego's motion: constant, from a CSV file, or unknown.

source = load_ego_csv(Path("drive.csv"), max_gap_s=2.0)
pipeline.step(frame.time_s, detections, source.at(frame.time_s))
"""

from __future__ import annotations

import bisect
import csv
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from itertools import pairwise
from pathlib import Path
from typing import Protocol

from ssd_triton.common.errors import UserError
from ssd_triton.common.files import relative_to_cwd
from ssd_triton.common.units import KMH_PER_MPS

_LIMITS: Mapping[str, float] = {"speed": 400 / KMH_PER_MPS, "yaw_rate": math.radians(180)}
"""No car exceeds 400 km/h or 180°/s: a larger value is in another unit, or broken."""

_COLUMN_UNITS: Mapping[str, tuple[str, float]] = {
    "time_s": ("time_s", 1.0),
    "time_ms": ("time_s", 1e-3),
    "speed_kmh": ("speed", 1 / KMH_PER_MPS),
    "speed_mps": ("speed", 1.0),
    "yaw_rate_deg_s": ("yaw_rate", math.pi / 180),
    "yaw_rate_rad_s": ("yaw_rate", 1.0),
}
"""Quantity of each known column, and its factor to seconds, metres per second and radians per second."""

_EXPECTED = "expected time_s,speed_kmh[,yaw_rate_deg_s] (or time_ms, speed_mps, yaw_rate_rad_s)"

_TIME_UNITS = {"seconds": 1.0, "milliseconds": 1e-3, "microseconds": 1e-6, "nanoseconds": 1e-9}

_EPOCH_S = (1e8, 1e10)
"""Times in this range, in seconds, are taken for epoch times of the years 1973 to 2286. No clip lasts as long."""


class EgoMotionError(UserError):
    """A file of the ego's motion is missing, unreadable, unsorted, or in other units."""


@dataclass(frozen=True)
class EgoMotion:
    """The ego's motion at one instant.

    Attributes:
        speed_mps: Speed over ground, at least 0. If None (unknown), decisions use the time to collision from image
            scale alone.
        yaw_rate_rad_s: Positive turns to the left, counter-clockwise from above, as in ISO 8855. If None (unknown),
            the corridor is straight.

    Raises:
        ValueError: The speed is below 0, or a value is not finite.
    """

    speed_mps: float | None = None
    yaw_rate_rad_s: float | None = None

    def __post_init__(self) -> None:
        if self.speed_mps is not None and not 0 <= self.speed_mps < math.inf:
            raise ValueError(f"speed_mps: got {self.speed_mps}, expected at least 0, or None")
        if self.yaw_rate_rad_s is not None and not math.isfinite(self.yaw_rate_rad_s):
            raise ValueError(f"yaw_rate_rad_s: got {self.yaw_rate_rad_s}, expected a finite number, or None")


class EgoSource(Protocol):
    """Source of the ego's motion."""

    def at(self, time_s: float) -> EgoMotion:
        """The ego's motion at the time of a frame."""


@dataclass(frozen=True)
class ConstantEgo:
    """A constant motion; unknown by default.

    Attributes:
        motion: The motion.
    """

    motion: EgoMotion = EgoMotion()

    def at(self, time_s: float) -> EgoMotion:
        """The same motion at any time."""
        return self.motion


class RecordedEgo:
    """The ego's motion, interpolated between samples and never extrapolated.

    Args:
        times_s: Times of the samples, rising.
        motions: The samples.
        max_gap_s: The motion is unknown between samples farther apart, and outside the samples.
        name: Name of the record, for messages.
    """

    def __init__(
        self, times_s: Sequence[float], motions: Sequence[EgoMotion], max_gap_s: float, name: str = "ego motion"
    ) -> None:
        self._times_s = list(times_s)
        self._motions = list(motions)
        self._max_gap_s = max_gap_s
        self._name = name

    def at(self, time_s: float) -> EgoMotion:
        """The motion at a time; unknown in a gap, before the first and after the last sample."""
        after = bisect.bisect_left(self._times_s, time_s)
        if after < len(self._times_s) and self._times_s[after] == time_s:
            return self._motions[after]
        if after in (0, len(self._times_s)) or self._step_s(after) > self._max_gap_s:
            return EgoMotion()
        share = (time_s - self._times_s[after - 1]) / self._step_s(after)
        first, second = self._motions[after - 1], self._motions[after]
        return EgoMotion(
            _between(first.speed_mps, second.speed_mps, share),
            _between(first.yaw_rate_rad_s, second.yaw_rate_rad_s, share),
        )

    def check_overlap(self, duration_s: float) -> None:
        """Check that a clip which begins at 0 s and lasts ``duration_s`` shares some time with the record.

        Raises:
            EgoMotionError: It shares none.
        """
        first_s, last_s = self._times_s[0], self._times_s[-1]
        if first_s > duration_s or last_s < 0:
            raise EgoMotionError(
                f"{self._name}: got times from {first_s:g} to {last_s:g} s, expected some within the clip, 0 to "
                f"{duration_s:g} s; subtract the time of the clip's first frame from all of them"
            )

    def _step_s(self, after: int) -> float:
        return self._times_s[after] - self._times_s[after - 1]


def load_ego_csv(path: Path, max_gap_s: float) -> RecordedEgo:
    """Read the ego's motion from a CSV file with a header.

    Args:
        path: Columns ``time_s`` or ``time_ms`` (since the clip's first frame, rising), ``speed_kmh`` or ``speed_mps``,
            and optionally ``yaw_rate_deg_s`` or ``yaw_rate_rad_s`` (positive to the left).
        max_gap_s: See :class:`RecordedEgo`.

    Raises:
        EgoMotionError: The file cannot be read, a column is missing, unknown or named without its unit, times do not
            rise, a value is not a number or impossible for a car (the message names the line), or times are in another
            unit or since another moment.
    """
    name = relative_to_cwd(path)
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [(number, row) for number, row in enumerate(csv.reader(file), start=1) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise EgoMotionError(f"cannot read {name} ({error}); give another file to --ego-speed-csv") from error
    if len(rows) < 2:
        raise EgoMotionError(f"{name}: got {len(rows)} lines, {_EXPECTED} and at least one line of numbers")
    columns = _columns(name, [title.strip() for title in rows[0][1]])
    times_s: list[float] = []
    motions: list[EgoMotion] = []
    for number, row in rows[1:]:
        values = _numbers(f"{name}, line {number}", columns, row)
        if times_s and values["time_s"] <= times_s[-1]:
            raise EgoMotionError(
                f"{name}, line {number}: got {values['time_s']:g} s after {times_s[-1]:g} s, expected rising times; "
                "sort the file"
            )
        times_s.append(values["time_s"])
        motions.append(EgoMotion(values["speed"], values.get("yaw_rate")))
    _check_times(name, next(one for one in columns if one.startswith("time_")), times_s, max_gap_s)
    return RecordedEgo(times_s, motions, max_gap_s, name)


def _check_times(name: str, column: str, times_s: Sequence[float], max_gap_s: float) -> None:
    """Refuse epoch times, and times that are in another unit, judging by the interval between samples.

    Epoch times are not aligned by their first sample: a log need not begin with the clip, and a shifted speed would go
    unnoticed.
    """
    factor = _COLUMN_UNITS[column][1]
    first = times_s[0] / factor
    for unit, unit_s in _TIME_UNITS.items():
        if _EPOCH_S[0] <= first * unit_s < _EPOCH_S[1]:
            date = datetime.fromtimestamp(first * unit_s, timezone.utc)
            ratio = factor / unit_s
            scale = f", and divide by {ratio:.0f}" if ratio > 1 else f", and multiply by {1 / ratio:.0f}"
            raise EgoMotionError(
                f"{name}: got epoch {unit} as {column} ({first:.0f} is {date:%Y-%m-%d %H:%M:%S} UTC), expected times "
                f"since the clip's first frame; subtract the time of that frame{scale if unit_s != factor else ''}"
            )
    if len(times_s) < 2:
        return
    step_s = statistics.median(after - before for before, after in pairwise(times_s))
    if step_s <= max_gap_s:
        return
    likely = next((unit for unit, unit_s in _TIME_UNITS.items() if step_s / factor * unit_s <= max_gap_s), None)
    raise EgoMotionError(
        f"{name}: got samples {step_s:g} s apart by {column}, expected at most {max_gap_s:g} s "
        "(demo.max_ego_gap_s, up to 2); "
        + ("log the speed more often" if likely is None else f"the times look like {likely}, so correct their unit")
    )


def _columns(name: str, titles: Sequence[str]) -> list[str]:
    """Check the header and return its columns."""
    for title in titles:
        if title not in _COLUMN_UNITS:
            raise EgoMotionError(f"{name}: unknown column '{title}', {_EXPECTED}; rename it, with its unit")
    quantities = [_COLUMN_UNITS[title][0] for title in titles]
    for quantity in ("time_s", "speed"):
        if quantity not in quantities:
            raise EgoMotionError(f"{name}: no column of {quantity}, {_EXPECTED}")
    if len(set(quantities)) < len(quantities):
        raise EgoMotionError(f"{name}: got the same quantity twice in {','.join(titles)}, {_EXPECTED}; remove one")
    return list(titles)


def _numbers(place: str, columns: Sequence[str], row: Sequence[str]) -> dict[str, float]:
    """Values of a line by quantity, in seconds, metres per second and radians per second."""
    if len(row) != len(columns):
        raise EgoMotionError(f"{place}: got {len(row)} values, expected {len(columns)}: {','.join(columns)}")
    values = {}
    for column, text in zip(columns, row, strict=True):
        quantity, factor = _COLUMN_UNITS[column]
        try:
            value = float(text) * factor
        except ValueError:
            raise EgoMotionError(f"{place}: got '{text}' as {column}, expected a number") from None
        limit = _LIMITS.get(quantity, math.inf)
        lowest = 0.0 if quantity == "speed" else -limit
        if not math.isfinite(value) or not lowest <= value <= limit:
            raise EgoMotionError(
                f"{place}: got {text} as {column}, expected {lowest / factor:g} to {limit / factor:g}; check its unit"
            )
        values[quantity] = value
    return values


def _between(first: float | None, second: float | None, share: float) -> float | None:
    return None if first is None or second is None else first + (second - first) * share
