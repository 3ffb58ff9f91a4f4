"""Drawing primitives: shapes, text and the boxes of detections."""

from __future__ import annotations

import numpy as np
import pytest

from ssd_triton.common.detections import Detections
from ssd_triton.driving.braking.state import State
from ssd_triton.driving.drawing.state_colours import STATE_COLOURS
from ssd_triton.media.drawing import draw_detections
from ssd_triton.media.drawing.canvas import class_colour, fill, put_text, text_extent_px
from ssd_triton.media.drawing.text import fitting_size_px, text_width_px, wrap_text
from tests.media.pictures import CAR, GREY, PERSON, changed, grey_image, of_colour, one

# --- Shapes and text --------------------------------------------------------------------------------------------------


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


# --- Detections -------------------------------------------------------------------------------------------------------


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


# --- Text -------------------------------------------------------------------------------------------------------------


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
