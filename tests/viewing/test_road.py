"""The road from above in the page: the marks of the demo's picture."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

from ssd_triton.driving.braking.state import State
from ssd_triton.driving.camera import RoadPoint
from ssd_triton.driving.drawing.road_marks import Trails
from ssd_triton.driving.drawing.trigger_ranges import TriggerRanges
from ssd_triton.viewing.road import road_record
from tests.driving.situations import at, decided


def test_uncertainty_is_a_bar_along_the_line_of_sight() -> None:
    """Two standard deviations long, with caps across it; and none beside the corridor."""
    item = replace(at(40.0, 30.0, range_std_m=5.0), range_m=50.0)
    beside = replace(item, track_id=4, in_corridor=False)
    record = road_record(decided(State.SAFE, item, beside), None, {}, 60.0)
    assert json.loads(json.dumps(record, allow_nan=False))["objects"]
    shown, muted = record["objects"]
    (near, far), *caps = shown["bar"]
    assert (near, far) == ([36.0, 27.0], [44.0, 33.0])
    for end, (left, right) in zip((near, far), caps, strict=True):
        assert math.dist(left, right) == pytest.approx(1.2, abs=0.02)
        assert [sum(pair) / 2 for pair in zip(left, right, strict=True)] == pytest.approx(end, abs=0.01)
        assert math.dist(left, near) == pytest.approx(math.dist(right, near), abs=0.02)
    assert "bar" not in muted and "name" not in muted


def test_near_objects_come_last_with_arrow_trail_and_name() -> None:
    trails = Trails()
    earlier = decided(State.SAFE, at(32.0, 0.0), time_s=0.5)
    now = decided(State.SAFE, at(30.0, 0.0, closing_speed_mps=4.0, lateral_speed_mps=1.0), at(50.0, 0.0, track_id=9))
    trails.follow(earlier)
    far, near = road_record(now, None, trails.follow(now), 60.0)["objects"]
    assert (far["name"], near["name"]) == ("#9 50.0 m", "#3 30.0 m")
    assert near["trail"] == [[32.0, 0.0], [30.0, 0.0]] and far["trail"] == [[50.0, 0.0]]
    assert near["tip"] == [26.0, 1.0]


def test_trails_end_and_hold_what_is_in_the_corridor_alone() -> None:
    trails = Trails()
    for tenth in range(30):
        beside = at(20.0, 8.0, track_id=5, in_corridor=False)
        followed = trails.follow(decided(State.SAFE, at(60.0 - tenth, 0.0), beside, time_s=tenth / 10))
    assert list(followed) == [3]
    assert followed[3][0] == RoadPoint(46.0, 0.0) and len(followed[3]) == 16


def test_the_corridor_ends_where_a_warning_would_begin_and_has_its_triggers() -> None:
    record = road_record(decided(State.SAFE), TriggerRanges(brake_m=20.0, warn_m=35.0), {}, 60.0)
    assert record["corridor"]["left"][-1] == [35.0, -1.1]
    assert record["triggers"] == [["BRAKE", [20.0, -1.1], [20.0, 1.1]], ["WARN", [35.0, -1.1], [35.0, 1.1]]]
    unknown = road_record(decided(State.SAFE, speed_mps=None), None, {}, 60.0)
    assert (unknown["triggers"], unknown["corridor"]["left"][-1][0]) == ([], 40.0)
