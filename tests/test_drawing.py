"""Pictures: what is where, in which colour, and that nothing that is drawn can fail."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from ssd_triton.arrays import UInt8Array
from ssd_triton.braking.decision import Decision, RoadObject, State, Zones, decide, locate, zones
from ssd_triton.braking.geometry import GroundCamera, RoadPoint
from ssd_triton.braking.timing import StageRate
from ssd_triton.config import Config
from ssd_triton.detections import Detections
from ssd_triton.drawing import Scene, draw_detections, scene_size_px
from ssd_triton.drawing.birdseye import BirdsEyeView
from ssd_triton.drawing.canvas import Colour, class_colour, fill, put_text, text_extent_px
from ssd_triton.drawing.overlay import STATE_COLOURS, draw_banner, draw_corridor, draw_stage_times

BoolArray = npt.NDArray[np.bool_]

PERSON, CAR = 1, 3
GREY = 100
RATES = [StageRate("read", 2.0, 500.0), StageRate("detect x4", 80.0, 50.0), StageRate("pipeline", None, None)]


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


def test_a_margin_is_kept_free_of_labels(labels: tuple[str, ...]) -> None:
    detections = one((60, 10, 200, 150))
    free = draw_detections(grey_image(), detections, labels, top_margin_px=30)
    assert of_colour(free, class_colour(CAR))[32:42, 62:100].mean() > 0.4
    assert of_colour(free, class_colour(CAR))[13:28, 65:195].sum() == 0


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


# --- Overlays --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", list(State))
def test_the_banner_has_the_colour_of_the_state(state: State) -> None:
    drawn = draw_banner(grey_image(), Decision(state, None, "car at 18.4 m"))
    assert of_colour(drawn, STATE_COLOURS[state])[2:24, 2:5].all()
    # The frame goes around the picture unless all is well.
    assert of_colour(drawn, STATE_COLOURS[state])[179, 300] == (state is not State.SAFE)
    assert (drawn[60:170, 10:310] == GREY).all()


def test_the_banner_gives_the_reason() -> None:
    short, long = (draw_banner(grey_image(), Decision(State.SAFE, None, reason)) for reason in ("", "car at 18.4 m"))
    different = np.flatnonzero(changed(short, long).any(axis=0))
    assert different[-1] - different[0] > 60


def test_stage_times_stand_in_the_lower_left_corner() -> None:
    drawn = draw_stage_times(grey_image(640, 360), RATES)
    rows, columns = np.nonzero(changed(grey_image(640, 360), drawn))
    assert rows.min() > 250
    assert columns.max() < 250
    assert drawn.max() > 200


def test_a_stage_that_has_no_times_yet_is_listed() -> None:
    unknown = draw_stage_times(grey_image(), [StageRate(rate.name, None, None) for rate in RATES])
    assert changed(unknown, draw_stage_times(grey_image(), RATES)).any()


CAMERA = GroundCamera(320, 180, 60, 1.3, 0.0)
ZONES = Zones(20.0, 28.0)


def test_the_corridor_lies_on_the_road_in_the_colour_of_the_state() -> None:
    safe, brake = (
        draw_corridor(grey_image(), CAMERA, Decision(state, None, ""), ZONES, 1.25)
        for state in (State.SAFE, State.BRAKE)
    )
    # 1.3 m below the camera, 28 m away and about 277 px of focal length: 13 rows below the horizon.
    assert not changed(grey_image(), safe)[:94].any()
    assert safe[175, 160, 1] > GREY
    assert safe[175, 160, 0] < GREY
    assert brake[175, 160, 0] > GREY


def test_the_corridor_ends_at_the_obstacle() -> None:
    obstacle = RoadObject(0, "car", RoadPoint(10.0, 0.0), True)
    drawn = draw_corridor(grey_image(), CAMERA, Decision(State.BRAKE, obstacle, ""), ZONES, 1.25)
    y_px = CAMERA.image_point(10.0, 0.0)
    assert y_px is not None
    rows = np.flatnonzero(changed(grey_image(), drawn).any(axis=1))
    assert rows[0] == pytest.approx(y_px.y_px, abs=2)


@pytest.mark.parametrize(
    ("pitch_deg", "zones_m"),
    [(-40.0, Zones(20, 28)), (0.0, Zones(0, 0)), (0.0, Zones(1, 2))],
    ids=["no road in sight", "standing", "zones below the image"],
)
def test_a_corridor_out_of_sight_is_not_drawn(pitch_deg: float, zones_m: Zones) -> None:
    camera = GroundCamera(320, 180, 60, 1.3, pitch_deg)
    drawn = draw_corridor(grey_image(), camera, Decision(State.SAFE, None, ""), zones_m, 1.25)
    np.testing.assert_array_equal(drawn, grey_image())


# --- The road from above ---------------------------------------------------------------------------------------------


def panel(height_px: int = 720) -> BirdsEyeView:
    return BirdsEyeView(height_px, Zones(33.2, 44.3), corridor_half_width_m=1.25, ego_speed_kmh=50)


def place_in_panel(forward_m: float, lateral_m: float) -> tuple[float, float]:
    """Centre column and lowest row of an obstacle's marker."""
    obstacle = RoadObject(0, "car", RoadPoint(forward_m, lateral_m), True)
    empty = panel().draw([], Decision(State.BRAKE, None, ""))
    drawn = panel().draw([obstacle], Decision(State.BRAKE, obstacle, ""))
    marker = of_colour(drawn, STATE_COLOURS[State.BRAKE]) & ~of_colour(empty, STATE_COLOURS[State.BRAKE])
    # Rows as wide as a car: the range's digits are not.
    rows = np.flatnonzero(marker.sum(axis=1) > 25)
    columns = np.flatnonzero(marker[rows[len(rows) // 2]])
    return float(columns[:25].min() + columns[-1:].max()) / 2, float(rows[-1])


def test_markers_are_to_scale() -> None:
    x_10, y_10 = place_in_panel(10, 0)
    x_20, y_20 = place_in_panel(20, 0)
    x_30, y_30 = place_in_panel(30, 4)
    assert y_10 - y_20 == pytest.approx(y_20 - y_30, abs=2)
    assert y_10 - y_20 > 80
    assert x_10 == pytest.approx(x_20, abs=1)
    # The panel is 20 m and half the frame's height wide.
    assert x_30 - x_10 == pytest.approx(4 * 360 / 20, abs=2)


@pytest.mark.parametrize("position", [(200.0, 0.0), (10.0, 10.5), (10.0, -10.5)])
def test_objects_beyond_the_panel_are_left_out(position: tuple[float, float]) -> None:
    decision = Decision(State.SAFE, None, "")
    far = RoadObject(0, "car", RoadPoint(*position), False)
    np.testing.assert_array_equal(panel().draw([far], decision), panel().draw([], decision))


def test_drawing_leaves_the_background_alone() -> None:
    view, decision = panel(), Decision(State.SAFE, None, "")
    before = view.draw([], decision).copy()
    view.draw([RoadObject(0, "bus", RoadPoint(9.0, 1.0), True)], decision)
    np.testing.assert_array_equal(view.draw([], decision), before)


@pytest.mark.parametrize("speed_kmh", [0, 10, 50, 110, 130, 400])
def test_the_panel_shows_zones_of_every_speed(config: Config, speed_kmh: float) -> None:
    limits = zones(config.braking.model_copy(update={"ego_speed_kmh": speed_kmh}))
    view = BirdsEyeView(375, limits, corridor_half_width_m=1.25, ego_speed_kmh=speed_kmh)
    drawn = view.draw([], Decision(State.SAFE, None, ""))
    red, green, blue = np.moveaxis(drawn.astype(int), 2, 0)
    # The lines at the ends of the zones; the zones themselves are darker. Past 150 m neither ends in the panel.
    ends = {"warn": ((red > 125) & (green > 85) & (blue < 80)).any(), "brake": ((red > 125) & (green < 85)).any()}
    assert ends == {"warn": limits.warn_m > 0 and limits.brake_m < 150, "brake": limits.brake_m > 0}


# --- The whole frame -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size_px", [(1280, 720), (1242, 375), (960, 540), (333, 111), (64, 48)])
def test_a_composed_frame(config: Config, labels: tuple[str, ...], size_px: tuple[int, int]) -> None:
    width, height = size_px
    camera = GroundCamera(width, height, 60, 1.3, 0.0)
    detections = one((width * 0.45, height * 0.5, width * 0.55, height * 0.8))
    objects = locate(detections, labels, camera, class_ids={CAR}, corridor_half_width_m=1.25)
    decision = decide(objects, config.braking)
    assert decision.state is State.BRAKE
    image = grey_image(width, height)
    frame = Scene(camera, config.braking, labels).compose(image, detections, objects, decision, RATES)
    assert (frame.shape[1], frame.shape[0]) == scene_size_px(size_px)
    assert frame.dtype == np.uint8
    red = of_colour(frame, STATE_COLOURS[State.BRAKE])
    # In the camera's image and in the panel.
    assert red[:, :width].any()
    assert red[:, width:].any()
    assert (image == GREY).all()
