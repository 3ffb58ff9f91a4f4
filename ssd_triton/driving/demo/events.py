"""The log of decisions and their evidence, in JSON Lines format."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import TextIO

from ssd_triton.common.files import atomic_output
from ssd_triton.common.interrupts import interrupts_deferred
from ssd_triton.common.units import KMH_PER_MPS
from ssd_triton.driving.braking.decision import Cause, FrameDecision, TrackedObject
from ssd_triton.driving.braking.state import State
from ssd_triton.driving.camera import Camera
from ssd_triton.driving.drawing.notices import Notice


class EventLog:
    """Writes a line for every change of the state or of the notices, and for every frame of WARN and BRAKE.

    Lines are written at once, to a temporary file that gets its name when the block ends, even by an exception.

    Args:
        path: Ends in ``.jsonl``; missing folders are created.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._files = ExitStack()
        self._file: TextIO | None = None
        self._state: State | None = None
        self._notices: set[tuple[str, str]] = set()

    def __enter__(self) -> EventLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Closed without the exception: the file gets its name in any case.
        with interrupts_deferred():
            self._files.close()

    def add(
        self,
        decision: FrameDecision,
        frame: int | None,
        camera: Camera,
        notices: Sequence[Notice] = (),
        *,
        latency_is_measured: bool,
    ) -> None:
        """Log the decision on a frame.

        Args:
            decision: The decision; the first one counts as a change.
            frame: Index of the frame in the source; None for one that could not be decoded.
            camera: The camera in force.
            notices: The notices in force.
            latency_is_measured: Whether ``decision.latency_s`` was measured.
        """
        if self._file is None:
            # Opened by the first decision: without one, no file is left behind.
            temporary = self._files.enter_context(atomic_output(self.path))
            self._file = self._files.enter_context(temporary.open("w", encoding="utf-8", buffering=1))
        reasons: set[tuple[str, str]] = {(notice.kind, notice.reason) for notice in notices}
        changed, noticed = decision.state is not self._state, reasons != self._notices
        if not changed and not noticed and decision.state < State.WARN:
            return
        event = {
            "event": "state" if changed else "notice" if noticed else "decision",
            "time_s": round(decision.time_s, 6),
            "frame": frame,
            "state": decision.state.name,
            "state_before": None if self._state is None else self._state.name,
            "reason": decision.reason,
            "cause": None if decision.cause is None else _cause(decision.cause),
            "notices": {notice.kind: notice.text for notice in notices},
            "camera_pitch_deg": _rounded(camera.pitch_deg),
            "camera_pitch_std_deg": _rounded(camera.pitch_std_rad, math.degrees(1)),
            "camera_calibrated": camera.calibrated,
            "ego_speed_kmh": _rounded(decision.ego.speed_mps, KMH_PER_MPS),
            "ego_yaw_rate_deg_s": _rounded(decision.ego.yaw_rate_rad_s, math.degrees(1)),
            "required_deceleration_mps2": _rounded(decision.required_deceleration_mps2),
            "too_late_to_stop": decision.cause is not None and decision.cause.value == math.inf,
            "time_to_collision_s": _rounded(decision.time_to_collision_s),
            "latency_s": _rounded(decision.latency_s),
            "latency_is_measured": latency_is_measured,
            "obstacle": None if decision.obstacle is None else _evidence(decision.obstacle),
        }
        self._file.write(json.dumps(event, allow_nan=False) + "\n")
        self._state, self._notices = decision.state, reasons


def _cause(cause: Cause) -> dict[str, object]:
    """The logged figures of a cause; an infinite value is None, as for ``too_late_to_stop``."""
    values = {**asdict(cause), "state": cause.state.name}
    return {name: _rounded(value) if isinstance(value, float) else value for name, value in values.items()}


def _evidence(item: TrackedObject) -> dict[str, object]:
    """The logged figures of an object."""
    return {
        "track_id": item.track_id,
        "class_name": item.class_name,
        "score": _rounded(item.score),
        "box_xyxy": [round(side, 1) for side in item.box_xyxy],
        "range_m": _rounded(item.range_m),
        "range_std_m": _rounded(item.range_std_m),
        "range_from_ground_m": _rounded(item.range_from_ground_m),
        "range_from_size_m": _rounded(item.range_from_size_m),
        "closing_speed_mps": _rounded(item.closing_speed_mps),
        "closing_speed_std_mps": _rounded(item.closing_speed_std_mps),
        "lateral_speed_mps": _rounded(item.lateral_speed_mps),
        "offset_m": _rounded(item.offset_m),
        "ttc_range_s": _rounded(item.ttc_range_s),
        "ttc_scale_s": _rounded(item.ttc_scale_s),
        "ttc_disagreement": item.disagreement,
        "in_corridor": item.in_corridor,
        "age_s": _rounded(item.age_s),
        "unseen_s": _rounded(item.unseen_s),
    }


def _rounded(value: float | None, factor: float = 1.0) -> float | None:
    """Round to three decimals; None for values that JSON cannot represent."""
    return None if value is None or not math.isfinite(value) else round(value * factor, 3)
