"""The car's own motion: constant, absent, and from CSV files good and bad."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import pytest

from ssd_triton.config import Config
from ssd_triton.driving.braking.ego import ConstantEgo, EgoMotion, EgoMotionError, load_ego_csv

GOOD = "time_s,speed_kmh,yaw_rate_deg_s\n0.0,36,0\n0.1,54,18\n0.2,36,0\n"


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "speed.csv"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("speed_mps", [-0.1, math.nan, math.inf])
def test_speeds_that_cannot_be(speed_mps: float) -> None:
    with pytest.raises(ValueError, match="speed_mps: got"):
        EgoMotion(speed_mps)


def test_absent_and_constant() -> None:
    assert ConstantEgo().at(3.0) == EgoMotion(None, None)
    assert ConstantEgo(EgoMotion(10.0)).at(3.0).speed_mps == 10.0


@pytest.mark.parametrize(
    ("time_s", "speed_mps", "yaw_rate_rad_s"),
    [
        (0.0, 10.0, 0.0),
        (0.05, 12.5, math.radians(9)),
        (0.1, 15.0, math.radians(18)),
        (0.2, 10.0, 0.0),
        (-0.01, None, None),
        (0.21, None, None),
    ],
)
def test_samples_are_interpolated(
    tmp_path: Path, time_s: float, speed_mps: float | None, yaw_rate_rad_s: float | None
) -> None:
    motion = load_ego_csv(write(tmp_path, GOOD), max_gap_s=0.5).at(time_s)
    assert motion.speed_mps == (None if speed_mps is None else pytest.approx(speed_mps))
    assert motion.yaw_rate_rad_s == (None if yaw_rate_rad_s is None else pytest.approx(yaw_rate_rad_s))


def test_nothing_is_known_in_a_gap(tmp_path: Path) -> None:
    source = load_ego_csv(write(tmp_path, "time_s,speed_mps\n0,10\n0.1,10\n2.0,20\n2.1,20\n"), max_gap_s=0.5)
    assert [source.at(time_s).speed_mps for time_s in (0.05, 0.1, 1.0, 1.99, 2.0)] == [10, 10, None, None, 20]


def test_a_byte_order_mark_and_blank_lines_are_no_harm(tmp_path: Path) -> None:
    source = load_ego_csv(write(tmp_path, "\ufefftime_s, speed_kmh\n\n0,36\n\n1,36\n"), max_gap_s=2)
    assert source.at(0.5) == EgoMotion(10.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "got 0 lines, expected time_s,speed_kmh"),
        ("time_s,speed_kmh\n", "got 1 lines, expected time_s,speed_kmh"),
        ("0.0,36\n0.1,36\n", "unknown column '0.0'"),
        ("time_s,speed\n0,36\n", "unknown column 'speed', expected time_s,speed_kmh"),
        ("timestamp,speed_kmh\n0,36\n", "unknown column 'timestamp'"),
        ("time_s,yaw_rate_deg_s\n0,3\n", "no column of speed"),
        ("time_s,speed_kmh,speed_mps\n0,36,10\n", "the same quantity twice"),
        ("time_s,speed_kmh\n0,36\n0.2,36\n0.1,36\n", "line 4: got 0.1 s after 0.2 s, expected rising times"),
        ("time_s,speed_kmh\n0,36\n0,36\n", "line 3: got 0 s after 0 s"),
        ("time_s,speed_kmh\n0,fast\n", "line 2: got 'fast' as speed_kmh, expected a number"),
        ("time_s,speed_kmh\n0\n", "line 2: got 1 values, expected 2"),
        ("time_s,speed_kmh\n0,-3\n", "line 2: got -3 as speed_kmh, expected 0 to 400; check its unit"),
        ("time_s,speed_kmh\n0,nan\n", "line 2: got nan as speed_kmh"),
        ("time_s,speed_mps\n0,130\n", "line 2: got 130 as speed_mps, expected 0 to 111.111; check its unit"),
        ("time_s,speed_kmh,yaw_rate_rad_s\n0,50,9\n", "got 9 as yaw_rate_rad_s, expected -3.14159 to 3.14159"),
    ],
)
def test_files_that_are_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(EgoMotionError) as caught:
        load_ego_csv(write(tmp_path, text), max_gap_s=0.5)
    assert message in str(caught.value)
    assert "speed.csv" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(EgoMotionError, match=r"cannot read .*none\.csv"):
        load_ego_csv(tmp_path / "none.csv", max_gap_s=0.5)


# --- Logs as loggers write them ---------------------------------------------------------------------------------------


def log(times: Sequence[float], column: str = "time_s") -> str:
    """A log of a constant 50 km/h."""
    return f"{column},speed_kmh\n" + "".join(f"{time},50\n" for time in times)


def test_a_log_of_1_hz_is_bridged_even_where_a_sample_is_missing(tmp_path: Path) -> None:
    source = load_ego_csv(write(tmp_path, log([0, 1, 2, 4, 5])), Config().demo.max_ego_gap_s)
    assert [source.at(tenth / 10).speed_mps for tenth in range(51)] == pytest.approx([50 / 3.6] * 51)
    assert source.at(5.1).speed_mps is None


def test_times_may_be_milliseconds_if_the_column_says_so(tmp_path: Path) -> None:
    source = load_ego_csv(write(tmp_path, log(range(0, 6000, 100), "time_ms")), max_gap_s=2)
    assert source.at(5.85).speed_mps == pytest.approx(50 / 3.6)


EPOCH_S = 1714566605
SAID = "2024-05-01 12:30:05 UTC), expected times since the clip's first frame; subtract the time of that frame"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (log(range(EPOCH_S, EPOCH_S + 9)), f"got epoch seconds as time_s (1714566605 is {SAID}"),
        (
            log([EPOCH_S * 1000 + 100 * i for i in range(60)]),
            f"got epoch milliseconds as time_s (1714566605000 is {SAID}",
        ),
        (log([EPOCH_S * 10**3]), "and divide by 1000"),
        (log([EPOCH_S * 10**6]), "got epoch microseconds as time_s"),
        (log([EPOCH_S * 10**9]), "and divide by 1000000000"),
        (log([EPOCH_S * 1000], "time_ms"), f"got epoch milliseconds as time_ms (1714566605000 is {SAID}"),
        (log([EPOCH_S], "time_ms"), "subtract the time of that frame, and multiply by 1000"),
        (log(range(0, 6000, 100)), "got samples 100 s apart by time_s, expected at most 2 s"),
        (log(range(0, 6000, 100)), "the times look like milliseconds, so correct their unit"),
        (log(range(0, 6_000_000, 100_000)), "the times look like microseconds"),
        (log(range(0, 6 * 10**9, 10**8)), "the times look like nanoseconds"),
        (log(range(0, 50 * 10**11, 10**11)), "log the speed more often"),
    ],
)
def test_times_in_another_unit_or_since_another_moment(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(EgoMotionError) as caught:
        load_ego_csv(write(tmp_path, text), max_gap_s=2)
    assert message in str(caught.value)


@pytest.mark.parametrize("first_s", [-9.0, 2.5, 45_005.0])
def test_a_log_must_share_some_time_with_the_clip(tmp_path: Path, first_s: float) -> None:
    """Seconds of the day, for instance, are none of the clip."""
    source = load_ego_csv(write(tmp_path, log([first_s + second for second in range(7)])), max_gap_s=2)
    with pytest.raises(EgoMotionError, match=r"speed\.csv: got times from .*, expected some within the clip, 0 to 2 s"):
        source.check_overlap(2.0)
    load_ego_csv(write(tmp_path, log([1.9, 3])), max_gap_s=2).check_overlap(2.0)
