"""Colours and names of states, and the object that a state is about, for all pictures and plots."""

from __future__ import annotations

from collections.abc import Mapping

from ssd_triton.driving.braking.decision import FrameDecision, TrackedObject
from ssd_triton.driving.braking.state import State
from ssd_triton.media.drawing.canvas import MUTED, PAPER, Colour

STATE_COLOURS: Mapping[State, Colour] = {
    State.NO_DATA: (150, 160, 175),
    State.SAFE: (62, 184, 120),
    State.WARN: (245, 176, 48),
    State.BRAKE: (235, 78, 78),
}
STATE_NAMES: Mapping[State, str] = {state: state.name.replace("_", " ") for state in State}

DISAGREEMENT: Colour = (222, 120, 232)
"""Colour of objects whose two times to collision disagree; distinct from all states and classes."""


def reported_object(decision: FrameDecision) -> TrackedObject | None:
    """The object that the banner names: the cause's, as long as it is tracked; without a cause, the obstacle."""
    if decision.cause is None:
        return decision.obstacle
    return next((item for item in decision.objects if item.track_id == decision.cause.track_id), None)


def object_colour(item: TrackedObject, decision: FrameDecision) -> Colour:
    """Colour of an object: the state's for the reported one, light in the corridor, muted beside it."""
    reported = reported_object(decision)
    if reported is not None and item.track_id == reported.track_id:
        return STATE_COLOURS[decision.state]
    return PAPER if item.in_corridor else MUTED


def label_colour(item: TrackedObject, decision: FrameDecision) -> Colour:
    """Colour of an object's label, which flags a disagreement in the corridor."""
    return DISAGREEMENT if item.in_corridor and item.disagreement else object_colour(item, decision)
