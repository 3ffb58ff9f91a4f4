"""What is drawn over the road: labels, banner, corridor and objects."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from ssd_triton.common.arrays import UInt8Array
from ssd_triton.common.detections import Detections
from ssd_triton.config import Config
from ssd_triton.driving.braking.decision import Cause, FrameDecision
from ssd_triton.driving.braking.state import State
from ssd_triton.driving.camera import Camera
from ssd_triton.driving.drawing.banner import banner_height_px, draw_banner
from ssd_triton.driving.drawing.corridor import draw_corridor
from ssd_triton.driving.drawing.notices import Notice, draw_notices
from ssd_triton.driving.drawing.objects import describe, draw_objects, draw_others
from ssd_triton.driving.drawing.state_colours import DISAGREEMENT, STATE_COLOURS
from ssd_triton.driving.drawing.status_bar import draw_status, status_height_px
from ssd_triton.driving.drawing.trigger_ranges import TriggerRanges, trigger_ranges
from ssd_triton.media.drawing.canvas import MUTED, Rectangle
from tests.driving.situations import STATUS, at, decided, thing
from tests.media.pictures import CAR, GREY, PERSON, changed, grey_image, of_colour

# --- What is told -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, "#3 car 18.4 ± 1.2 m · TTC 3.4 s"),
        ({"ttc_s": None}, "#3 car 18.4 ± 1.2 m"),
        ({"ttc_s": 500.0}, "#3 car 18.4 ± 1.2 m"),
        ({"disagreement": True}, "#3 car 18.4 ± 1.2 m · TTC 3.4 s by range, 3.6 s by scale!"),
        ({"disagreement": True, "ttc_range_s": None}, "#3 car 18.4 ± 1.2 m · TTC - by range, 3.6 s by scale!"),
        ({"in_corridor": False}, "#3 car 18 m"),
        ({"ttc_s": None, "unseen_s": 0.25}, "#3 car 18.4 ± 1.2 m · unseen 0.2 s"),
    ],
)
def test_labels_tell_what_is_known(changes: dict[str, object], text: str) -> None:
    assert describe(thing(**changes)) == text


def test_trigger_ranges_of_a_stationary_object(config: Config) -> None:
    known = trigger_ranges(decided(State.SAFE), config.braking)
    assert known is not None
    speed_mps, braking = 50 / 3.6, config.braking
    expected_m = braking.front_overhang_m + speed_mps * 0.6 + speed_mps**2 / (2 * braking.deceleration_mps2)
    assert known.brake_m == pytest.approx(expected_m)
    assert known.warn_m - known.brake_m == pytest.approx(speed_mps * braking.warning_lead_time_s)
    assert trigger_ranges(decided(State.SAFE, speed_mps=None), config.braking) is None


# --- Overlays ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", list(State))
def test_the_banner_has_the_colour_of_the_state(state: State) -> None:
    drawn = grey_image().copy()
    draw_banner(drawn, state, "car at 18.4 m")
    assert of_colour(drawn, STATE_COLOURS[state])[3:24, 3:6].all()
    # The frame goes around the picture unless all is well.
    assert of_colour(drawn, STATE_COLOURS[state])[179, 300] == (state is not State.SAFE)
    assert (drawn[60:170, 10:310] == GREY).all()


def test_a_long_reason_takes_a_second_line_and_stays_in_the_banner() -> None:
    short, long = grey_image(640, 360).copy(), grey_image(640, 360).copy()
    draw_banner(short, State.SAFE, "car at 18.4 m")
    draw_banner(long, State.SAFE, "car at 18.4 m, closing at 50 km/h, 1.2 s to collision " * 4)
    rows = np.flatnonzero(changed(short, long).any(axis=1))
    assert 0 < rows[0] < 12
    assert banner_height_px(360) * 0.6 < rows[-1] < banner_height_px(360)
    assert np.flatnonzero(changed(short, long).any(axis=0))[-1] < 636


@pytest.mark.parametrize("size_px", [(640, 360), (960, 540), (1280, 720), (1242, 375)])
def test_the_figures_of_the_run_stand_at_the_lower_edge(size_px: tuple[int, int]) -> None:
    drawn = grey_image(*size_px).copy()
    draw_status(drawn, STATUS)
    height_px = status_height_px(size_px, STATUS)
    rows = np.flatnonzero(changed(grey_image(*size_px), drawn).any(axis=1))
    assert rows[0] >= size_px[1] - height_px - 2
    assert height_px < size_px[1] / 8
    bright = (drawn > 120).all(axis=2)
    # The frame of the banner may cover the outermost pixels.
    assert not bright[-2:].any()
    assert not bright[:, -2:][size_px[1] - height_px + 2 :].any()


def test_the_figures_of_the_run() -> None:
    assert STATUS.parts() == [
        "read 2.0 ms",
        "detect 80.0 ms",
        "- fps",
        "latency 93 ms",
        "dropped 3",
        "without data 1",
    ]
    assert "latency 93 ms (assumed)" in replace(STATUS, latency_is_measured=False).parts()


CAMERA = Camera.from_fov((320, 180), 60, 1.3)
RANGES = TriggerRanges(20.0, 28.0)
ROOM = Rectangle(0, 34, 320, 160)


def corridor_of(decision: FrameDecision, ranges: TriggerRanges | None = RANGES, camera: Camera = CAMERA) -> UInt8Array:
    drawn = grey_image().copy()
    draw_corridor(drawn, camera, decision, ranges)
    return drawn


def test_the_corridor_lies_on_the_road_in_the_colour_of_the_state() -> None:
    safe, brake = (corridor_of(decided(state)) for state in (State.SAFE, State.BRAKE))
    # 1.3 m below the camera, 28 m away and about 277 px of focal length: 13 rows below the horizon.
    assert not changed(grey_image(), safe)[:94].any()
    assert safe[175, 160, 1] > GREY
    assert safe[175, 160, 0] < GREY
    assert brake[175, 160, 0] > GREY


def test_the_corridor_ends_at_the_obstacle() -> None:
    obstacle = at(10.0, 0.0)
    rows = np.flatnonzero(
        changed(grey_image(), corridor_of(decided(State.BRAKE, obstacle, obstacle=obstacle))).any(axis=1)
    )
    y_px = CAMERA.image_point(10.0, 0.0)
    assert y_px is not None
    assert rows[0] == pytest.approx(y_px.y_px, abs=2)


@pytest.mark.parametrize("curvature_per_m", [0.02, -0.02])
def test_the_corridor_bends(curvature_per_m: float) -> None:
    straight, bent = (
        changed(grey_image(), corridor_of(decided(State.SAFE, curvature_per_m=value), TriggerRanges(0, 20)))
        for value in (0.0, curvature_per_m)
    )
    # About 15 m away, a circle of 50 m is 2.3 m to the side.
    row = 115
    shift_px = np.flatnonzero(bent[row]).mean() - np.flatnonzero(straight[row]).mean()
    assert math.copysign(1, shift_px) == math.copysign(1, curvature_per_m)
    assert 20 < abs(shift_px) < 60


def test_the_corridor_without_a_speed() -> None:
    assert changed(grey_image(), corridor_of(decided(State.SAFE, speed_mps=None), None)).any()


@pytest.mark.parametrize(
    ("pitch_deg", "ranges"),
    [(-40.0, TriggerRanges(20, 28)), (0.0, TriggerRanges(1, 1))],
    ids=["no road in sight", "standing"],
)
def test_a_corridor_that_can_hardly_be_seen(pitch_deg: float, ranges: TriggerRanges) -> None:
    drawn = corridor_of(decided(State.SAFE), ranges, Camera.from_fov((320, 180), 60, 1.3, pitch_deg))
    assert changed(grey_image(), drawn).any() == (pitch_deg == 0)


# --- Objects ----------------------------------------------------------------------------------------------------------


def objects_of(decision: FrameDecision) -> UInt8Array:
    drawn = grey_image().copy()
    draw_objects(drawn, decision, ROOM)
    return drawn


def test_nothing_followed_nothing_drawn() -> None:
    np.testing.assert_array_equal(objects_of(decided(State.SAFE)), grey_image())


def test_the_obstacle_has_the_colour_of_the_state_and_is_tinted() -> None:
    obstacle = thing()
    drawn = objects_of(decided(State.BRAKE, obstacle, obstacle=obstacle))
    red = STATE_COLOURS[State.BRAKE]
    assert of_colour(drawn, red)[100:140, 119:122].any(axis=1).all()
    assert drawn[115, 160, 0] > GREY > drawn[115, 160, 1]
    # The label is above the box.
    assert of_colour(drawn, red)[66:78, 122:200].mean() > 0.4


def test_what_is_beside_the_corridor_is_not_set_off() -> None:
    drawn = objects_of(decided(State.SAFE, thing(in_corridor=False)))
    assert (drawn[115, 160] == GREY).all()
    assert not any(of_colour(drawn, colour).any() for colour in STATE_COLOURS.values())


def test_a_disagreement_is_flagged_by_a_colour_of_its_own() -> None:
    for disagreement in (False, True):
        obstacle = thing(disagreement=disagreement)
        drawn = objects_of(decided(State.WARN, obstacle, obstacle=obstacle))
        assert of_colour(drawn, DISAGREEMENT).any() == disagreement
    assert DISAGREEMENT not in STATE_COLOURS.values()


def test_labels_keep_off_other_boxes() -> None:
    """The label of a parked car has its usual place on a far one: it is drawn elsewhere."""
    far, parked = (60.0, 60.0, 100.0, 78.0), (70.0, 80.0, 140.0, 140.0)
    both = [thing(box_xyxy=box, track_id=number, in_corridor=False) for number, box in enumerate((far, parked), 1)]
    drawn = objects_of(decided(State.SAFE, *both))
    assert (drawn[64:74, 64:96] == GREY).all()
    assert of_colour(drawn, MUTED)[82:96, 74:138].mean() > 0.2


def test_notices_lie_below_the_banner_and_keep_their_places() -> None:
    drawn = grey_image(640, 360).copy()
    notices = [Notice("REPLAY", "a recording"), Notice("UNCALIBRATED", "no lane lines that meet", "pitch 1.0 ± 3.0°")]
    places = draw_notices(drawn, notices)
    assert len(places) == 2
    assert not places[0].overlaps(places[1])
    assert places[0].top >= banner_height_px(360)
    rows, columns = np.nonzero(changed(drawn, grey_image(640, 360)))
    assert places[0].top - 2 <= rows.min() <= rows.max() <= places[1].bottom + 2
    assert columns.max() <= places[1].right + 2
    assert of_colour(drawn, STATE_COLOURS[State.WARN])[places[1].top : places[1].bottom].any()


@pytest.mark.parametrize("top", [-20.0, 5.0, 40.0, 120.0])
def test_labels_keep_to_their_room(top: float) -> None:
    obstacle = thing(box_xyxy=(120.0, top, 200.0, top + 50))
    drawn = objects_of(decided(State.BRAKE, obstacle, obstacle=obstacle))
    # A label is wider than the box.
    beside = np.flatnonzero(of_colour(drawn, STATE_COLOURS[State.BRAKE])[:, 215:].any(axis=1))
    assert len(beside)
    assert beside[0] >= ROOM.top
    assert beside[-1] < ROOM.bottom


@pytest.mark.parametrize("box", [(-50, -50, 400, 300), (-1e30, 50, 1e30, 100), (100, 100, 100, 100), (400, 0, 500, 9)])
@pytest.mark.parametrize("size_px", [(320, 180), (7, 5), (1, 1)])
def test_any_object_can_be_drawn(box: tuple[float, float, float, float], size_px: tuple[int, int]) -> None:
    drawn = grey_image(*size_px).copy()
    draw_objects(drawn, decided(State.WARN, thing(box_xyxy=box)), Rectangle(0, 0, *size_px))
    assert drawn.shape == (size_px[1], size_px[0], 3)


def test_what_is_not_followed_has_a_thin_box() -> None:
    followed, drawn = thing(), grey_image().copy()
    both = Detections(
        np.array([followed.box_xyxy, (20, 100, 60, 140)], np.float32),
        np.array([0.9, 0.8], np.float32),
        np.array([CAR, PERSON], np.int32),
    )
    draw_others(drawn, both, decided(State.SAFE, followed))
    touched = changed(grey_image(), drawn)
    assert touched[:, 15:65].any()
    assert not touched[:, 70:].any()


def test_a_state_marks_the_object_of_its_cause_and_not_the_nearest_one() -> None:
    """A hold is about what called for it, whatever else is in the corridor by then."""
    near, braked_for = thing(track_id=1, box_xyxy=(20, 90, 90, 150)), thing(track_id=2, range_m=30.0)
    cause = Cause(State.BRAKE, 0.5, 2, "car", "range", 6.0, 5.0, "m/s²", 0.0, 30.0, 8.0, held=True)
    decision = replace(decided(State.BRAKE, near, braked_for, obstacle=near), cause=cause)
    red = of_colour(objects_of(decision), STATE_COLOURS[State.BRAKE])
    assert red[100:140, 119:122].any(axis=1).all()
    assert not red[100:140, 10:100].any()
    gone = replace(decision, objects=(near,))
    assert not of_colour(objects_of(gone), STATE_COLOURS[State.BRAKE]).any()
