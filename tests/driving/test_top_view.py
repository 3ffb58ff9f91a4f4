"""The road from above: to scale, with arrows, trails and the corridor."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ssd_triton.common.arrays import UInt8Array
from ssd_triton.driving.braking.decision import FrameDecision, TrackedObject
from ssd_triton.driving.braking.state import State
from ssd_triton.driving.drawing.birdseye import BirdsEyeView, panel_width_px
from ssd_triton.driving.drawing.state_colours import DISAGREEMENT, STATE_COLOURS
from tests.driving.situations import at, decided
from tests.media.pictures import changed, of_colour

HEIGHT_PX = 720
EMPTY = decided(State.SAFE, speed_mps=None)


def panel_of(*decisions: FrameDecision, range_m: float = 60.0, height_px: int = HEIGHT_PX) -> UInt8Array:
    """The panel after some frames."""
    view = BirdsEyeView(height_px, range_m)
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
        sure = at(30.0, 6.0, range_std_m=0.01, closing_speed_mps=0.0)
        unsure = replace(sure, range_std_m=std_m)
        rows = changed(panel_of(decided(State.SAFE, sure)), panel_of(decided(State.SAFE, unsure))).any(axis=1)
        return int(np.ptp(np.flatnonzero(rows)))

    assert extent_px(8.0) == pytest.approx(2 * extent_px(4.0), rel=0.15)


def test_arrows_point_where_objects_go() -> None:
    def centre(**changes: object) -> tuple[float, float]:
        still = at(30.0, 0.0, closing_speed_mps=0.0)
        moving = replace(still, **changes)  # type: ignore[arg-type]
        rows, columns = np.nonzero(changed(panel_of(decided(State.SAFE, still)), panel_of(decided(State.SAFE, moving))))
        return float(rows.mean()), float(columns.mean())

    near, far = centre(closing_speed_mps=8.0)[0], centre(closing_speed_mps=-8.0)[0]
    assert near > far + 60
    right, left = centre(lateral_speed_mps=8.0)[1], centre(lateral_speed_mps=-8.0)[1]
    assert right > left + 60


def test_trails_show_where_objects_were_and_end() -> None:
    def frame(time_s: float, forward_m: float) -> FrameDecision:
        return decided(State.SAFE, at(forward_m, 6.0), time_s=time_s, speed_mps=None)

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
