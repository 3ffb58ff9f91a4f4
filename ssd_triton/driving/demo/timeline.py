"""The plot of a run's figures over time."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ssd_triton.common.report import COLOURS, RED, ReportFolder
from ssd_triton.common.units import KMH_PER_MPS
from ssd_triton.driving.braking.decision import Cause, FrameDecision, TrackedObject
from ssd_triton.driving.braking.state import State
from ssd_triton.driving.drawing.state_colours import STATE_COLOURS, STATE_NAMES, reported_object

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LONGEST_TTC_S = 10.0
"""Longer times to collision are not plotted: they do not matter for a decision, and compress the short ones."""
_HARDEST_MPS2 = 15.0
"""Upper end of the plotted decelerations, beyond any car's."""
_EMPTY_RANGE_M = 50.0
"""Upper end of the plotted ranges without an object in the corridor."""
_MOST_TRACKS = 7
"""Number of plotted tracks: one for each colour but black, which is the ego's. The tracks with the most decisions are
plotted."""
_EGO_COLOUR = COLOURS[-1]

Value = Callable[[TrackedObject], float | None]


@dataclass(frozen=True)
class TimelinePoint:
    """The plotted figures of one frame.

    Attributes:
        time_s: Time of the frame.
        state: The decision.
        cause: Its cause; None for SAFE and NO_DATA.
        reported_id: Track of the object that the decision is about; None without one.
        ego_kmh: Speed of the ego; NaN while unknown.
        required_mps2: Deceleration required to avoid the obstacle; NaN while unknown.
        objects: Objects in the corridor, and the reported object, by track.
    """

    time_s: float
    state: State
    cause: Cause | None
    reported_id: int | None
    ego_kmh: float
    required_mps2: float
    objects: Mapping[int, TrackedObject]

    @classmethod
    def of(cls, decision: FrameDecision) -> TimelinePoint:
        """The figures of a decision."""
        reported = reported_object(decision)
        return cls(
            time_s=decision.time_s,
            state=decision.state,
            cause=decision.cause,
            reported_id=None if reported is None else reported.track_id,
            ego_kmh=_known(decision.ego.speed_mps) * KMH_PER_MPS,
            required_mps2=_known(decision.required_deceleration_mps2),
            objects={item.track_id: item for item in decision.objects if item.in_corridor or item is reported},
        )


def plot_timeline(path: Path, points: Sequence[TimelinePoint], title: str, deceleration_mps2: float) -> bool:
    """Plot range, speeds, times to collision and required deceleration over time, with the states as bands behind them.

    Every track has a line of its own. Thresholds are those in force: of the cause of a state, else the configured one.

    Args:
        path: A PNG file.
        points: In order of time, at least one.
        title: Title of the plot.
        deceleration_mps2: Deceleration that calls for BRAKE.

    Returns:
        Whether it was drawn: matplotlib may be missing.
    """

    def draw(figure: Figure) -> None:
        from matplotlib.patches import Patch

        axes = figure.subplots(4, 1, sharex=True)
        _plot_tracks(axes, points)
        times_s = [point.time_s for point in points]
        axes[1].plot(times_s, [point.ego_kmh for point in points], color=_EGO_COLOUR, label="own speed")
        axes[2].plot([], [], color=_EGO_COLOUR, label="by range")
        axes[2].plot([], [], color=_EGO_COLOUR, linestyle=":", label="by image scale")
        limits_s = [_threshold(point, "s", math.nan) for point in points]
        if not all(map(math.isnan, limits_s)):
            axes[2].plot(times_s, limits_s, color=RED, linestyle="--", linewidth=1, label="limit in force")
        limits_mps2 = [_threshold(point, "m/s²", deceleration_mps2) for point in points]
        demands_mps2 = [min(_demand_mps2(point), _HARDEST_MPS2) for point in points]
        axes[3].plot(times_s, demands_mps2, color=_EGO_COLOUR, linewidth=1.4, label="required, as decided")
        limit: dict[str, Any] = {"color": RED, "linestyle": "--", "linewidth": 1, "drawstyle": "steps-mid"}
        axes[3].plot(times_s, limits_mps2, label="limit in force", **limit)
        labels = ("range, m", "speed and closing speed, km/h", "time to collision, s", "deceleration, m/s²")
        for axis, label in zip(axes, labels, strict=True):
            axis.set_ylabel(label)
            _draw_bands(axis, points)
            if axis.get_legend_handles_labels()[0]:
                axis.legend(loc="upper right", framealpha=0.9)
        axes[-1].set_xlabel("time, s")
        bands = [Patch(color=_hex(state), alpha=0.35, label=STATE_NAMES[state]) for state in State]
        figure.legend(handles=bands, loc="outside upper center", ncols=len(bands), fontsize=9, title=title)

    return ReportFolder(path.parent).picture(path.name, draw, rows=4, columns=2, height_inch=9.5)


def _plot_tracks(axes: Sequence[Axes], points: Sequence[TimelinePoint]) -> None:
    """Plot the figures of every track that a decision was about."""
    times_s = [point.time_s for point in points]
    counts = Counter(point.reported_id for point in points if point.reported_id is not None)
    farthest_m = 0.0
    for colour, (track_id, _) in zip(COLOURS[:_MOST_TRACKS], counts.most_common(_MOST_TRACKS), strict=False):

        def values(value: Value, track_id: int = track_id) -> list[float]:
            return [
                _known(value(point.objects[track_id])) if track_id in point.objects else math.nan for point in points
            ]

        name = next(point.objects[track_id].class_name for point in reversed(points) if track_id in point.objects)
        style: dict[str, Any] = {"color": colour, "linewidth": 1.6, "marker": ".", "markersize": 3}
        ranges_m, stds_m = np.array(values(lambda item: item.range_m)), np.array(values(lambda item: item.range_std_m))
        axes[0].plot(times_s, ranges_m, label=f"#{track_id} {name}, ± 1 std", **style)
        axes[0].fill_between(times_s, ranges_m - stds_m, ranges_m + stds_m, color=colour, alpha=0.2, linewidth=0)
        axes[1].plot(times_s, values(lambda item: item.closing_speed_mps * KMH_PER_MPS), **style)
        axes[2].plot(times_s, values(lambda item: _short(item.ttc_range_s)), **style)
        by_scale = values(lambda item: _short(item.ttc_scale_s))
        axes[2].plot(times_s, by_scale, color=colour, linewidth=1, linestyle=":")
        farthest_m = max(farthest_m, float(np.nanmax(ranges_m + stds_m)))
    axes[0].set_ylim(0, min(farthest_m or _EMPTY_RANGE_M, 2 * _EMPTY_RANGE_M) * 1.05)
    axes[2].set_ylim(0, _LONGEST_TTC_S * 1.05)
    axes[3].set_ylim(0, _HARDEST_MPS2 * 1.05)


def _threshold(point: TimelinePoint, unit: str, otherwise: float) -> float:
    return point.cause.threshold if point.cause is not None and point.cause.unit == unit else otherwise


def _demand_mps2(point: TimelinePoint) -> float:
    """The deceleration behind the decision: that of the cause, unless it is held, or else that of the obstacle."""
    cause = point.cause
    return cause.value if cause is not None and cause.unit == "m/s²" and not cause.held else point.required_mps2


def _draw_bands(axis: Axes, points: Sequence[TimelinePoint]) -> None:
    """Colour the background by the states."""
    start = 0
    for index in range(1, len(points) + 1):
        if index == len(points) or points[index].state is not points[start].state:
            end_s = points[min(index, len(points) - 1)].time_s
            axis.axvspan(points[start].time_s, end_s, color=_hex(points[start].state), alpha=0.3, linewidth=0)
            start = index


def _short(value: float | None) -> float | None:
    return value if value is not None and value <= _LONGEST_TTC_S else None


def _known(value: float | None) -> float:
    return math.nan if value is None else value


def _hex(state: State) -> str:
    return "#{:02x}{:02x}{:02x}".format(*STATE_COLOURS[state])
