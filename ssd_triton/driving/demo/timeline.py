"""The figures of a run over time, and their plot."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssd_triton.common.files import atomic_output
from ssd_triton.common.units import KMH_PER_MPS
from ssd_triton.driving.braking.decision import FrameDecision
from ssd_triton.driving.braking.state import State
from ssd_triton.driving.drawing.state_colours import STATE_COLOURS, STATE_NAMES

_LONGEST_TTC_S = 10.0
"""Longer times to collision are not plotted: they are of no use to a decision, and hide the short ones."""
_HARDEST_MPS2 = 15.0
"""Harder braking than any car's is cut off in the plot."""
_EMPTY_RANGE_M = 50.0
"""What the axis of ranges shows when there is no obstacle."""
_RANGE_COLOUR, _SCALE_COLOUR, _EGO_COLOUR = "#2563c9", "#c026d3", "#374151"


@dataclass(frozen=True)
class Moment:
    """One frame's figures; NaN where there is none.

    Attributes:
        time_s: When the frame was taken.
        state: What was decided.
        track_id: Of the obstacle; 0 without one.
        range_m: Of the obstacle.
        range_std_m: Its standard deviation.
        ego_kmh: Speed of the car.
        closing_kmh: How fast the obstacle comes nearer.
        ttc_range_s: Time to collision by range.
        ttc_scale_s: Time to collision by image scale.
        required_mps2: Required deceleration.
    """

    time_s: float
    state: State
    track_id: int
    range_m: float
    range_std_m: float
    ego_kmh: float
    closing_kmh: float
    ttc_range_s: float
    ttc_scale_s: float
    required_mps2: float

    @classmethod
    def of(cls, decision: FrameDecision) -> Moment:
        """Those of a decision."""
        item = decision.obstacle
        return cls(
            time_s=decision.time_s,
            state=decision.state,
            track_id=0 if item is None else item.track_id,
            range_m=math.nan if item is None else item.range_m,
            range_std_m=math.nan if item is None else item.range_std_m,
            ego_kmh=_known(decision.ego.speed_mps) * KMH_PER_MPS,
            closing_kmh=math.nan if item is None else item.closing_speed_mps * KMH_PER_MPS,
            ttc_range_s=math.nan if item is None else _known(item.ttc_range_s),
            ttc_scale_s=math.nan if item is None else _known(item.ttc_scale_s),
            required_mps2=_known(decision.required_deceleration_mps2),
        )


def can_plot() -> bool:
    """Whether matplotlib is there; a machine that only talks to a server may do without."""
    return importlib.util.find_spec("matplotlib") is not None


def plot_timeline(path: Path, moments: Sequence[Moment], title: str, deceleration_mps2: float) -> None:
    """Plot range, speeds, times to collision and required deceleration over time, the states as bands behind them.

    Args:
        path: A PNG file.
        moments: In order of time, at least one.
        title: Of the plot.
        deceleration_mps2: From which on BRAKE is due; drawn as a line.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.patches import Patch

    figure, axes = plt.subplots(4, 1, figsize=(11, 9.5), sharex=True, layout="constrained")
    times_s = [moment.time_s for moment in moments]

    def plot(row: int, value: Callable[[Moment], float], label: str, colour: str) -> None:
        axes[row].plot(times_s, _broken(moments, value), color=colour, label=label, linewidth=1.6, marker=".", ms=3)

    plot(0, lambda moment: moment.range_m, "range of the obstacle", _RANGE_COLOUR)
    low = _broken(moments, lambda moment: moment.range_m - moment.range_std_m)
    high = _broken(moments, lambda moment: moment.range_m + moment.range_std_m)
    axes[0].fill_between(times_s, low, high, color=_RANGE_COLOUR, alpha=0.25, linewidth=0, label="± 1 std")
    axes[1].plot(times_s, [moment.ego_kmh for moment in moments], color=_EGO_COLOUR, label="ego", linewidth=1.6)
    plot(1, lambda moment: moment.closing_kmh, "closing", _RANGE_COLOUR)
    plot(2, lambda moment: _up_to(moment.ttc_range_s, _LONGEST_TTC_S), "by range", _RANGE_COLOUR)
    plot(2, lambda moment: _up_to(moment.ttc_scale_s, _LONGEST_TTC_S), "by image scale", _SCALE_COLOUR)
    plot(3, lambda moment: min(moment.required_mps2, _HARDEST_MPS2), "required", _RANGE_COLOUR)
    axes[3].axhline(deceleration_mps2, color="#b91c1c", linewidth=1, linestyle="--", label="BRAKE is due")
    farthest_m = max((value for value in high if not math.isnan(value)), default=_EMPTY_RANGE_M)
    for row, top in ((0, farthest_m), (2, _LONGEST_TTC_S), (3, _HARDEST_MPS2)):
        axes[row].set_ylim(0, top * 1.05)
    labels = ("range, m", "speed, km/h", "time to collision, s", "deceleration, m/s²")
    for axis, label in zip(axes, labels, strict=True):
        axis.set_ylabel(label)
        axis.grid(visible=True, alpha=0.25)
        _draw_bands(axis, moments)
        axis.legend(loc="upper right", fontsize=8, framealpha=0.9)
    axes[-1].set_xlabel("time, s")
    bands = [Patch(color=_hex(state), alpha=0.35, label=STATE_NAMES[state]) for state in State]
    figure.legend(handles=bands, loc="outside upper center", ncols=len(bands), fontsize=9, title=title)
    with atomic_output(path) as temporary:
        figure.savefig(temporary, dpi=110)
    plt.close(figure)


def _draw_bands(axis: Any, moments: Sequence[Moment]) -> None:
    """Colour the background by the states."""
    start = 0
    for index in range(1, len(moments) + 1):
        if index == len(moments) or moments[index].state is not moments[start].state:
            end_s = moments[min(index, len(moments) - 1)].time_s
            axis.axvspan(moments[start].time_s, end_s, color=_hex(moments[start].state), alpha=0.3, linewidth=0)
            start = index


def _broken(moments: Sequence[Moment], value: Callable[[Moment], float]) -> list[float]:
    """Values over time; NaN where another obstacle begins, so that no line joins the two."""
    values = [value(moment) for moment in moments]
    for index in range(1, len(moments)):
        before, now = moments[index - 1].track_id, moments[index].track_id
        if before and now and before != now and not math.isnan(moments[index].range_m):
            values[index - 1] = math.nan
    return values


def _up_to(value: float, limit: float) -> float:
    return value if value <= limit else math.nan


def _known(value: float | None) -> float:
    return math.nan if value is None else value


def _hex(state: State) -> str:
    return "#{:02x}{:02x}{:02x}".format(*STATE_COLOURS[state])
