"""The plot of a run's figures over time."""

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
"""Longer times to collision are not plotted: they do not matter for a decision, and compress the short ones."""
_HARDEST_MPS2 = 15.0
"""Upper end of the plotted decelerations, beyond any car's."""
_EMPTY_RANGE_M = 50.0
"""Upper end of the plotted ranges without an obstacle."""
_RANGE_COLOUR, _SCALE_COLOUR, _EGO_COLOUR = "#2563c9", "#c026d3", "#374151"


@dataclass(frozen=True)
class TimelinePoint:
    """The plotted figures of one frame; NaN for missing ones.

    Attributes:
        time_s: Time of the frame.
        state: The decision.
        track_id: Track of the obstacle; 0 without one.
        range_m: Range of the obstacle.
        range_std_m: Standard deviation of the range.
        ego_kmh: Speed of the ego.
        closing_kmh: Closing speed of the obstacle.
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
    def of(cls, decision: FrameDecision) -> TimelinePoint:
        """The figures of a decision."""
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
    """Whether matplotlib is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def plot_timeline(path: Path, points: Sequence[TimelinePoint], title: str, deceleration_mps2: float) -> None:
    """Plot range, speeds, times to collision and required deceleration over time, with the states as bands behind them.

    Args:
        path: A PNG file.
        points: In order of time, at least one.
        title: Title of the plot.
        deceleration_mps2: Threshold of BRAKE, drawn as a line.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.patches import Patch

    figure, axes = plt.subplots(4, 1, figsize=(11, 9.5), sharex=True, layout="constrained")
    times_s = [point.time_s for point in points]

    def plot(row: int, value: Callable[[TimelinePoint], float], label: str, colour: str) -> None:
        axes[row].plot(times_s, _broken(points, value), color=colour, label=label, linewidth=1.6, marker=".", ms=3)

    plot(0, lambda point: point.range_m, "range of the obstacle", _RANGE_COLOUR)
    low = _broken(points, lambda point: point.range_m - point.range_std_m)
    high = _broken(points, lambda point: point.range_m + point.range_std_m)
    axes[0].fill_between(times_s, low, high, color=_RANGE_COLOUR, alpha=0.25, linewidth=0, label="± 1 std")
    axes[1].plot(times_s, [point.ego_kmh for point in points], color=_EGO_COLOUR, label="ego", linewidth=1.6)
    plot(1, lambda point: point.closing_kmh, "closing", _RANGE_COLOUR)
    plot(2, lambda point: _up_to(point.ttc_range_s, _LONGEST_TTC_S), "by range", _RANGE_COLOUR)
    plot(2, lambda point: _up_to(point.ttc_scale_s, _LONGEST_TTC_S), "by image scale", _SCALE_COLOUR)
    plot(3, lambda point: min(point.required_mps2, _HARDEST_MPS2), "required", _RANGE_COLOUR)
    axes[3].axhline(deceleration_mps2, color="#b91c1c", linewidth=1, linestyle="--", label="BRAKE is due")
    farthest_m = max((value for value in high if not math.isnan(value)), default=_EMPTY_RANGE_M)
    for row, top in ((0, farthest_m), (2, _LONGEST_TTC_S), (3, _HARDEST_MPS2)):
        axes[row].set_ylim(0, top * 1.05)
    labels = ("range, m", "speed, km/h", "time to collision, s", "deceleration, m/s²")
    for axis, label in zip(axes, labels, strict=True):
        axis.set_ylabel(label)
        axis.grid(visible=True, alpha=0.25)
        _draw_bands(axis, points)
        axis.legend(loc="upper right", fontsize=8, framealpha=0.9)
    axes[-1].set_xlabel("time, s")
    bands = [Patch(color=_hex(state), alpha=0.35, label=STATE_NAMES[state]) for state in State]
    figure.legend(handles=bands, loc="outside upper center", ncols=len(bands), fontsize=9, title=title)
    with atomic_output(path) as temporary:
        figure.savefig(temporary, dpi=110)
    plt.close(figure)


def _draw_bands(axis: Any, points: Sequence[TimelinePoint]) -> None:
    """Colour the background by the states."""
    start = 0
    for index in range(1, len(points) + 1):
        if index == len(points) or points[index].state is not points[start].state:
            end_s = points[min(index, len(points) - 1)].time_s
            axis.axvspan(points[start].time_s, end_s, color=_hex(points[start].state), alpha=0.3, linewidth=0)
            start = index


def _broken(points: Sequence[TimelinePoint], value: Callable[[TimelinePoint], float]) -> list[float]:
    """Values over time; NaN between two obstacles, so that no line joins them."""
    values = [value(point) for point in points]
    for index in range(1, len(points)):
        before, now = points[index - 1].track_id, points[index].track_id
        if before and now and before != now and not math.isnan(points[index].range_m):
            values[index - 1] = math.nan
    return values


def _up_to(value: float, limit: float) -> float:
    return value if value <= limit else math.nan


def _known(value: float | None) -> float:
    return math.nan if value is None else value


def _hex(state: State) -> str:
    return "#{:02x}{:02x}{:02x}".format(*STATE_COLOURS[state])
