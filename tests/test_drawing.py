"""Pictures: what is where, in which colour, and that nothing that is drawn can fail."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from ssd_triton.common.arrays import UInt8Array
from ssd_triton.common.detections import Detections
from ssd_triton.config import Config
from ssd_triton.driving.braking.corridor import Corridor
from ssd_triton.driving.braking.ego import EgoMotion
from ssd_triton.driving.braking.objects import FrameDecision, TrackedObject
from ssd_triton.driving.braking.state import State
from ssd_triton.driving.camera import Camera, RoadPoint
from ssd_triton.driving.drawing.banner import banner_height_px, draw_banner
from ssd_triton.driving.drawing.birdseye import BirdsEyeView, panel_width_px
from ssd_triton.driving.drawing.objects import describe, draw_objects, draw_others
from ssd_triton.driving.drawing.road import draw_corridor
from ssd_triton.driving.drawing.scene import Scene, scene_size_px
from ssd_triton.driving.drawing.states import DISAGREEMENT, STATE_COLOURS
from ssd_triton.driving.drawing.status import RunStatus, StageRate, draw_status, status_height_px
from ssd_triton.driving.drawing.zones import Zones, standing_zones
from ssd_triton.media.drawing import draw_detections
from ssd_triton.media.drawing.canvas import Colour, Rectangle, class_colour, fill, put_text, text_extent_px
from ssd_triton.media.drawing.lettering import fitting_size_px, text_width_px, wrap_text

BoolArray = npt.NDArray[np.bool_]

PERSON, CAR = 1, 3
GREY = 100
RATES = [StageRate("read", 2.0, 500.0), StageRate("detect x4", 80.0, 50.0), StageRate("pipeline", None, None)]
STATUS = RunStatus(RATES, latency_ms=93.0, latency_is_measured=True, dropped_frames=3, frames_without_data=1)


def grey_image(width_px: int = 320, height_px: int = 180) -> UInt8Array:
    image = np.full((height_px, width_px, 3), GREY, np.uint8)
    image.setflags(write=False)
    return image


def one(box: tuple[float, float, float, float], class_id: int = CAR) -> Detections:
    return Detections(np.array([box], np.float32), np.array([0.9], np.float32), np.array([class_id], np.int32))


def of_colour(image_rgb: UInt8Array, colour: Colour) -> BoolArray:
    """Where an image has a colour, but for rounding: bool [H, W]."""
    matches: BoolArray = (np.abs(image_rgb.astype(int) - colour) <= 2).all(axis=2)
    return matches


def changed(before: UInt8Array, after: UInt8Array) -> BoolArray:
    """Where two images differ: bool [H, W]."""
    differs: BoolArray = (before != after).any(axis=2)
    return differs


# --- Shapes and text -------------------------------------------------------------------------------------------------


def test_half_opacity_is_the_mean() -> None:
    canvas = grey_image().copy()
    fill(canvas, [(10, 20), (30, 20), (30, 40), (10, 40)], (200, 0, 50), 0.5)
    assert canvas[30, 20].tolist() == [150, 50, 75]
    assert changed(grey_image(), canvas)[20:40, 10:30].all()
    # Nothing but the anti-aliased edge lies outside.
    assert not changed(grey_image(), canvas)[42:].any()
    assert not changed(grey_image(), canvas)[:, 32:].any()


def test_text_stays_where_it_is_put() -> None:
    canvas = grey_image().copy()
    width, height = text_extent_px("braking", 16)
    put_text(canvas, (100, 90), "braking", 16, (255, 255, 255))
    inked = changed(grey_image(), canvas)
    rows, columns = np.flatnonzero(inked.any(axis=1)), np.flatnonzero(inked.any(axis=0))
    assert 90 - height / 2 <= rows[0] < 90 < rows[-1] <= 90 + height / 2
    assert 100 <= columns[0] <= 102
    assert 100 + width - 3 <= columns[-1] < 100 + width
    assert canvas[inked].max() > 240


@pytest.mark.parametrize(("align", "left"), [("left", 100), ("centre", 80), ("right", 60)])
def test_text_is_aligned(align: str, left: int) -> None:
    canvas = grey_image().copy()
    width, _ = text_extent_px("HHHH", 16)
    put_text(canvas, (100, 90), "HHHH", 16, (255, 255, 255), align=align)  # type: ignore[arg-type]
    first = np.flatnonzero(changed(grey_image(), canvas).any(axis=0))[0]
    assert first == pytest.approx(100 - (100 - left) / 40 * width, abs=2.5)


def test_larger_and_bolder_text_takes_more_room() -> None:
    assert text_extent_px("car", 32)[0] == pytest.approx(2 * text_extent_px("car", 16)[0], abs=2)
    assert text_extent_px("car", 16, bold=True)[0] >= text_extent_px("car", 16)[0]


@pytest.mark.parametrize("position", [(-500, 90), (500, 90), (100, -90), (100, 500), (-3, 1), (318, 179)])
def test_text_beyond_the_edge_is_cut_off(position: tuple[float, float]) -> None:
    canvas = grey_image().copy()
    put_text(canvas, position, "outside", 16, (255, 255, 255))
    inside = -20 < position[0] < 320 and -10 < position[1] < 190
    assert changed(grey_image(), canvas).any() == inside


def test_classes_keep_their_colours_and_differ() -> None:
    road_users = {class_colour(class_id) for class_id in (1, 2, 3, 4, 6, 8)}
    assert len(road_users) == 6
    assert class_colour(CAR) == class_colour(CAR)
    assert not road_users & set(STATE_COLOURS.values())


# --- Detections ------------------------------------------------------------------------------------------------------


def test_no_detections_no_drawing(labels: tuple[str, ...]) -> None:
    image = grey_image()
    drawn = draw_detections(image, Detections.empty(), labels)
    np.testing.assert_array_equal(drawn, image)
    assert not np.shares_memory(drawn, image)


def test_a_box_is_drawn_on_its_edges(labels: tuple[str, ...]) -> None:
    drawn = draw_detections(grey_image(1280, 720), one((240, 320, 800, 600)), labels)
    edge = of_colour(drawn, class_colour(CAR))
    for y, x in ((460, 240), (460, 800), (320, 700), (600, 520)):
        assert edge[y - 1 : y + 1, x - 1 : x + 1].all()
    assert (drawn[325:595, 245:795] == GREY).all()
    assert (drawn[:290] == GREY).all()


def test_the_label_stands_above_the_box_in_its_colour(labels: tuple[str, ...]) -> None:
    drawn = draw_detections(grey_image(), one((60, 80, 200, 150)), labels)
    chip = of_colour(drawn, class_colour(CAR))[66:78, 62:100]
    # Background and dark letters.
    assert 0.4 < chip.mean() < 0.95
    assert drawn[66:78, 62:100].min() < 60


def test_a_note_makes_the_label_longer(labels: tuple[str, ...]) -> None:
    plain = draw_detections(grey_image(), one((60, 80, 200, 150)), labels)
    noted = draw_detections(grey_image(), one((60, 80, 200, 150)), labels, notes={0: "18.4 m"})
    widths = [np.flatnonzero(changed(grey_image(), drawn)[72]).max() for drawn in (plain, noted)]
    assert widths[1] > widths[0] + 30


def test_a_highlight_replaces_the_colour_and_tints_the_box(labels: tuple[str, ...]) -> None:
    red = STATE_COLOURS[State.BRAKE]
    drawn = draw_detections(grey_image(), one((60, 80, 200, 150)), labels, highlights={0: red})
    assert of_colour(drawn, red).sum() > 400
    assert not of_colour(drawn, class_colour(CAR)).any()
    assert drawn[115, 130, 0] > GREY > drawn[115, 130, 1]


def test_labels_of_the_same_box_do_not_cover_each_other(labels: tuple[str, ...]) -> None:
    box = (60.0, 80.0, 200.0, 150.0)
    both = Detections(
        np.array([box, box], np.float32), np.array([0.9, 0.8], np.float32), np.array([CAR, PERSON], np.int32)
    )
    drawn = draw_detections(grey_image(), both, labels)
    for class_id in (CAR, PERSON):
        alone = draw_detections(grey_image(), one(box, class_id), labels)
        in_chip = of_colour(alone, class_colour(class_id))[66:78, 62:100].sum()
        assert of_colour(drawn, class_colour(class_id)).sum() > in_chip


@pytest.mark.parametrize(
    "box",
    [
        (-50, -50, 400, 300),
        (-1e30, 50, 1e30, 100),
        (100, 100, 100, 100),
        (100.2, 100.2, 100.4, 100.4),
        (200, 100, 100, 50),
        (300, 170, 500, 400),
        (0, 0, 5, 5),
    ],
)
@pytest.mark.parametrize("size_px", [(320, 180), (7, 5), (1, 1)])
def test_any_box_can_be_drawn(
    labels: tuple[str, ...], box: tuple[float, float, float, float], size_px: tuple[int, int]
) -> None:
    image = grey_image(*size_px)
    drawn = draw_detections(image, one(box), labels, highlights={0: (255, 0, 0)})
    assert drawn.shape == image.shape
    assert drawn.dtype == np.uint8


@pytest.mark.parametrize("box", [(400, 50, 500, 100), (50, -90, 100, -10), (100, 100, 100, 150), (90, 50, 80, 100)])
def test_boxes_without_a_visible_part_are_left_out(
    labels: tuple[str, ...], box: tuple[float, float, float, float]
) -> None:
    np.testing.assert_array_equal(draw_detections(grey_image(), one(box), labels), grey_image())


# --- Text ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "width_px", "lines"),
    [
        ("", 100, []),
        ("car", 100, ["car"]),
        ("car at 18 m", 45, ["car at", "18 m"]),
        ("a b c d e f g h i j k l m n o p q r s t u v w x y z", 60, 2),
        ("unbreakable", 10, ["unbreakable"]),
    ],
)
def test_text_is_wrapped(text: str, width_px: int, lines: list[str] | int) -> None:
    wrapped = wrap_text(text, 12, width_px, max_lines=2)
    if isinstance(lines, int):
        assert len(wrapped) == lines
        assert wrapped[-1].endswith("...")
        assert all(text_width_px(line, 12) <= width_px for line in wrapped)
    else:
        assert wrapped == lines


def test_text_is_made_to_fit() -> None:
    assert fitting_size_px("car", 16, 1000) == 16
    assert fitting_size_px("not a safety system", 16, 100) < 16
    assert fitting_size_px("not a safety system", 16, 1) == 8


def test_raised_figures_are_small_and_high() -> None:
    canvas = grey_image().copy()
    put_text(canvas, (100, 90), "²", 32, (255, 255, 255))
    rows = np.flatnonzero(changed(grey_image(), canvas).any(axis=1))
    assert len(rows) < 18
    assert rows.mean() < 88


# --- What is told ----------------------------------------------------------------------------------------------------


def thing(**changes: object) -> TrackedObject:
    """A car 18.4 m ahead."""
    car = TrackedObject(
        track_id=3,
        class_name="car",
        box_xyxy=(120.0, 80.0, 200.0, 150.0),
        score=0.9,
        position=RoadPoint(18.4, 0.0),
        range_m=18.4,
        range_std_m=1.2,
        range_from_ground_m=18.0,
        range_from_size_m=19.0,
        closing_speed_mps=5.0,
        closing_speed_std_mps=0.5,
        lateral_speed_mps=0.0,
        offset_m=0.0,
        width_m=1.8,
        ttc_range_s=3.4,
        ttc_scale_s=3.6,
        ttc_s=3.4,
        disagreement=False,
        in_corridor=True,
        surely_in_corridor=True,
        age_s=1.0,
        unseen_s=0.0,
    )
    return replace(car, **changes)  # type: ignore[arg-type]


def at(forward_m: float, lateral_m: float, **changes: object) -> TrackedObject:
    return thing(range_m=forward_m, position=RoadPoint(forward_m, lateral_m), **changes)


def decided(
    state: State,
    *objects: TrackedObject,
    obstacle: TrackedObject | None = None,
    speed_mps: float | None = 50 / 3.6,
    curvature_per_m: float = 0.0,
    time_s: float = 1.0,
) -> FrameDecision:
    return FrameDecision(
        time_s=time_s,
        state=state,
        obstacle=obstacle,
        reason="car at 18.4 m, closing at 18 km/h",
        required_deceleration_mps2=None if obstacle is None else 4.0,
        time_to_collision_s=None if obstacle is None else obstacle.ttc_s,
        objects=objects,
        ego=EgoMotion(speed_mps),
        corridor=Corridor(1.1, curvature_per_m),
        latency_s=0.1,
    )


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, "#3 car 18.4 ± 1.2 m · TTC 3.4 s"),
        ({"ttc_s": None}, "#3 car 18.4 ± 1.2 m"),
        ({"ttc_s": 500.0}, "#3 car 18.4 ± 1.2 m"),
        ({"disagreement": True}, "#3 car 18.4 ± 1.2 m · TTC 3.4 s by range, 3.6 s by scale!"),
        ({"disagreement": True, "ttc_range_s": None}, "#3 car 18.4 ± 1.2 m · TTC - by range, 3.6 s by scale!"),
        ({"ttc_s": None, "unseen_s": 0.25}, "#3 car 18.4 ± 1.2 m · unseen 0.2 s"),
    ],
)
def test_labels_tell_what_is_known(changes: dict[str, object], text: str) -> None:
    assert describe(thing(**changes)) == text


def test_zones_of_a_standing_object(config: Config) -> None:
    known = standing_zones(decided(State.SAFE), config.braking)
    assert known is not None
    speed_mps, braking = 50 / 3.6, config.braking
    delay_s = 0.1 + braking.reaction_time_s + braking.confirm_time_s
    expected_m = braking.front_overhang_m + speed_mps * delay_s + speed_mps**2 / (2 * braking.deceleration_mps2)
    assert known.brake_m == pytest.approx(expected_m)
    assert known.warn_m - known.brake_m == pytest.approx(speed_mps * braking.warning_lead_time_s)
    assert standing_zones(decided(State.SAFE, speed_mps=None), config.braking) is None


# --- Overlays --------------------------------------------------------------------------------------------------------


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
        "detect x4 80.0 ms",
        "- fps",
        "latency 93 ms",
        "dropped 3",
        "without data 1",
    ]
    assert "latency 93 ms (assumed)" in replace(STATUS, latency_is_measured=False).parts()


CAMERA = Camera.from_fov((320, 180), 60, 1.3)
ZONES = Zones(20.0, 28.0)
ROOM = Rectangle(0, 34, 320, 160)


def corridor_of(decision: FrameDecision, zones: Zones | None = ZONES, camera: Camera = CAMERA) -> UInt8Array:
    drawn = grey_image().copy()
    draw_corridor(drawn, camera, decision, zones)
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
        changed(grey_image(), corridor_of(decided(State.SAFE, curvature_per_m=value), Zones(0, 20)))
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
    ("pitch_deg", "zones_m"),
    [(-40.0, Zones(20, 28)), (0.0, Zones(1, 1))],
    ids=["no road in sight", "standing"],
)
def test_a_corridor_that_can_hardly_be_seen(pitch_deg: float, zones_m: Zones) -> None:
    drawn = corridor_of(decided(State.SAFE), zones_m, Camera.from_fov((320, 180), 60, 1.3, pitch_deg))
    assert changed(grey_image(), drawn).any() == (pitch_deg == 0)


# --- Objects ---------------------------------------------------------------------------------------------------------


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


# --- The road from above ---------------------------------------------------------------------------------------------

HEIGHT_PX = 720
EMPTY = decided(State.SAFE, speed_mps=None)


def panel_of(*decisions: FrameDecision, range_m: float = 60.0, height_px: int = HEIGHT_PX) -> UInt8Array:
    """The panel after some frames."""
    view = BirdsEyeView(height_px, range_m, bearing_std_rad=0.002)
    panel = np.zeros((height_px, panel_width_px(height_px), 3), np.uint8)
    for decision in decisions:
        view.draw(panel, decision, None)
    return panel


def place_in_panel(item: TrackedObject) -> tuple[float, float]:
    """Centre column and lowest row of an object's marker."""
    still = replace(item, closing_speed_mps=0.0, range_std_m=0.01, disagreement=True)
    marker = of_colour(panel_of(decided(State.SAFE, still)), DISAGREEMENT)
    # Rows as wide as a car: the label's letters are not.
    columns = np.flatnonzero(marker.sum(axis=0) > 25)
    rows = np.flatnonzero(marker[:, columns].sum(axis=1) > 8)
    return float(columns.min() + columns.max()) / 2, float(rows[-1])


def test_markers_are_to_scale() -> None:
    x_10, y_10 = place_in_panel(at(10.0, 0.0))
    x_30, y_30 = place_in_panel(at(30.0, 0.0))
    x_aside, y_aside = place_in_panel(at(30.0, 8.0))
    px_per_m = (y_10 - y_30) / 20
    assert px_per_m > 8
    assert x_10 == pytest.approx(x_30, abs=1)
    # The same scale across as along.
    assert x_aside - x_30 == pytest.approx(8 * px_per_m, abs=3)
    assert y_aside == pytest.approx(y_30, abs=2)


@pytest.mark.parametrize("position", [(500.0, 0.0), (10.0, 60.0), (10.0, -60.0)])
def test_objects_beyond_the_panel_are_cut_off(position: tuple[float, float]) -> None:
    np.testing.assert_array_equal(panel_of(decided(State.SAFE, at(*position), speed_mps=None)), panel_of(EMPTY))


def test_uncertainty_is_drawn_to_scale() -> None:
    def extent_px(std_m: float) -> int:
        sure = at(30.0, 6.0, range_std_m=0.01, closing_speed_mps=0.0, in_corridor=False)
        unsure = replace(sure, range_std_m=std_m)
        rows = changed(panel_of(decided(State.SAFE, sure)), panel_of(decided(State.SAFE, unsure))).any(axis=1)
        return int(np.ptp(np.flatnonzero(rows)))

    assert extent_px(8.0) == pytest.approx(2 * extent_px(4.0), rel=0.15)


def test_arrows_point_where_objects_go() -> None:
    def centre(**changes: object) -> tuple[float, float]:
        still = at(30.0, 0.0, closing_speed_mps=0.0, in_corridor=False)
        moving = replace(still, **changes)  # type: ignore[arg-type]
        rows, columns = np.nonzero(changed(panel_of(decided(State.SAFE, still)), panel_of(decided(State.SAFE, moving))))
        return float(rows.mean()), float(columns.mean())

    near, far = centre(closing_speed_mps=8.0)[0], centre(closing_speed_mps=-8.0)[0]
    assert near > far + 60
    right, left = centre(lateral_speed_mps=8.0)[1], centre(lateral_speed_mps=-8.0)[1]
    assert right > left + 60


def test_trails_show_where_objects_were_and_end() -> None:
    def frame(time_s: float, forward_m: float) -> FrameDecision:
        return decided(State.SAFE, at(forward_m, 6.0, in_corridor=False), time_s=time_s, speed_mps=None)

    fresh = panel_of(frame(1.0, 20.0))
    trail = changed(fresh, panel_of(frame(0.0, 30.0), frame(0.5, 25.0), frame(1.0, 20.0)))
    assert trail.any()
    forgotten = panel_of(frame(0.0, 30.0), decided(State.SAFE, time_s=0.5, speed_mps=None), frame(1.0, 20.0))
    np.testing.assert_array_equal(forgotten, fresh)


def test_the_corridor_in_the_panel_has_the_colour_of_the_state_and_bends() -> None:
    middle = panel_width_px(HEIGHT_PX) // 2
    for state in (State.SAFE, State.WARN, State.BRAKE):
        assert of_colour(panel_of(decided(state)), STATE_COLOURS[state])[:, middle - 30 : middle + 30].any()
    bent = of_colour(panel_of(decided(State.BRAKE, curvature_per_m=0.02)), STATE_COLOURS[State.BRAKE])
    assert bent[:, middle + 40 :].any()
    assert not bent[:, : middle - 40].any()


# --- The whole frame -------------------------------------------------------------------------------------------------


def scene_of(config: Config, size_px: tuple[int, int]) -> Scene:
    return Scene(Camera.from_fov(size_px, 60, 1.3), config.braking, config.tracking, config.demo.view_range_m)


SIZES_PX = [(640, 360), (1280, 720), (1242, 375), (960, 540), (333, 111), (64, 48)]


@pytest.mark.parametrize("size_px", SIZES_PX)
def test_a_composed_frame(config: Config, size_px: tuple[int, int]) -> None:
    width, height = size_px
    box = (width * 0.45, height * 0.5, width * 0.55, height * 0.8)
    obstacle, image = thing(box_xyxy=box), grey_image(width, height)
    decision = decided(State.BRAKE, obstacle, obstacle=obstacle)
    frame = scene_of(config, size_px).compose(image, one(box), decision, STATUS)
    assert (frame.shape[1], frame.shape[0]) == scene_size_px(size_px)
    assert frame.dtype == np.uint8
    red = of_colour(frame, STATE_COLOURS[State.BRAKE])
    # In the camera's image and in the panel.
    assert red[:, :width].any()
    assert red[:, width:].any() == (height > 100)
    assert (image == GREY).all()


@pytest.mark.parametrize("size_px", SIZES_PX)
def test_a_frame_without_data_is_dimmed_and_says_so(config: Config, size_px: tuple[int, int]) -> None:
    width, height = size_px
    scene, image = scene_of(config, size_px), grey_image(width, height)
    frame = scene.compose(image, None, decided(State.NO_DATA), STATUS)
    assert of_colour(frame, STATE_COLOURS[State.NO_DATA])[3, 3]
    if width >= 640:
        assert (frame[height // 4, width // 2] < GREY / 2).all()
        # The words in the middle.
        assert (frame[height // 2 - 8 : height // 2 + 8, :width] > 200).any()
