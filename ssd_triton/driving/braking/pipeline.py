"""From detections to a decision, frame by frame: no video, no drawing, no server.

    pipeline = BrakingPipeline(camera, labels, config.braking, config.tracking, latency_s=0.08)
    decision = pipeline.step(time_s, detections, EgoMotion(speed_mps=13.9))
    print(decision.state.name, decision.reason)

A demonstration, not a safety system.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Collection, Sequence
from dataclasses import replace

from ssd_triton.common.detections import Detections
from ssd_triton.common.errors import ConfigError
from ssd_triton.config import BrakingConfig, TrackingConfig
from ssd_triton.driving.braking.corridor import Corridor
from ssd_triton.driving.braking.decision import Cause, FrameDecision, explain
from ssd_triton.driving.braking.ego import EgoMotion
from ssd_triton.driving.braking.hazard import Hazard, assess, describe_obstacle, describe_track
from ssd_triton.driving.braking.observation import observe
from ssd_triton.driving.braking.state import State, StateMachine
from ssd_triton.driving.braking.tracker import Tracker
from ssd_triton.driving.camera import Camera


class BrakingPipeline:
    """Tracks road users and decides, frame by frame in order of time.

    Args:
        camera: For images of the size of the frames.
        labels: Class names by id, the background first.
        braking: Thresholds of WARN and BRAKE.
        tracking: Parameters of tracking.
        latency_s: Measured time from the camera's exposure to the decision; part of the reaction time.

    Attributes:
        latency_s: See above; may be set at any time.
        refused_frames: Frames that were not later than the frame before.
        frames_without_data: Frames without detections.

    Raises:
        ConfigError: A class to brake for is not among the labels, or has no size in ``tracking.object_sizes``.
    """

    def __init__(
        self,
        camera: Camera,
        labels: Sequence[str],
        braking: BrakingConfig,
        tracking: TrackingConfig,
        latency_s: float = 0.0,
    ) -> None:
        self._camera = camera
        self._labels = tuple(labels)
        self._braking = braking
        self._settings = tracking
        self._class_ids = gate_class_ids(labels, braking.classes)
        for name in braking.classes:
            if name not in tracking.object_sizes:
                raise ConfigError(f"braking.classes: got '{name}', which has no size; add it to tracking.object_sizes")
        self._tracker = Tracker(camera, tracking)
        self._states = StateMachine(
            braking.warn_confirm_frames,
            braking.brake_confirm_frames,
            braking.confirm_time_s,
            braking.hold_time_s,
            braking.warning_time_s,
        )
        self._causes: dict[State, Cause] = {}
        self._time_s: float | None = None
        self._data_s = -math.inf
        self._frames_with_data = 0
        self._interval_s = 0.0
        self.latency_s = latency_s
        self.refused_frames = 0
        self.frames_without_data = 0

    def set_camera(self, camera: Camera) -> None:
        """Use a better calibration of the same camera; the tracks continue.

        Raises:
            ValueError: The camera is for images of another size.
        """
        if (camera.width_px, camera.height_px) != (self._camera.width_px, self._camera.height_px):
            raise ValueError(f"camera: got {camera.width_px}x{camera.height_px} px, expected the size as before")
        self._camera = camera
        self._tracker.set_camera(camera)

    def reset(self) -> None:
        """Clear all tracks and states, as for a cut in the video; the counts stay."""
        self._time_s = None
        self._states.reset()
        self._causes.clear()
        self._forget()

    def step(self, time_s: float, detections: Detections | None, ego: EgoMotion) -> FrameDecision:
        """Decide on a frame.

        During frames without data, WARN and BRAKE last until their hold ends; SAFE becomes NO_DATA. The first frames
        are NO_DATA too, until tracks and states can have been confirmed.

        Args:
            time_s: Time of the frame, later than the frame before. Any other frame is refused: it is counted, reported
                in the reason and changes nothing.
            detections: Detections of all classes, in pixels of the camera's image, down to
                ``tracking.low_score_thresh``; None when the frame could not be decoded, or no answer came.
            ego: The ego's motion at that time.
        """
        frame = FrameDecision(
            time_s=time_s,
            state=State.NO_DATA,
            obstacle=None,
            reason="no detections for this frame",
            required_deceleration_mps2=None,
            time_to_collision_s=None,
            objects=(),
            ego=ego,
            corridor=Corridor.ahead_of(ego, self._braking.corridor_half_width_m),
            latency_s=self.latency_s,
            delay_s=self._delay_s(),
        )
        if not math.isfinite(time_s) or (self._time_s is not None and time_s <= self._time_s):
            self.refused_frames += 1
            last_s = self._time_s or 0.0
            why = f"frame refused: its time is {time_s:.3f} s, the one before it was at {last_s:.3f} s"
            return self._without_data(replace(frame, time_s=last_s, reason=why))
        self._time_s = time_s
        if time_s - self._data_s > self._settings.max_gap_s:
            self._forget()
        self._tracker.advance(time_s, ego)
        if detections is None:
            self.frames_without_data += 1
            return self._without_data(frame)
        self._interval_s = time_s - self._data_s if self._frames_with_data else 0.0
        self._data_s = time_s
        self._frames_with_data += 1
        seen = observe(detections, self._labels, self._camera, self._settings, self._class_ids)
        self._tracker.update(seen, ego, frame.corridor)
        return self._decide(frame)

    def _forget(self) -> None:
        self._tracker.reset()
        self._states.interrupt()
        self._frames_with_data = 0

    def _delay_s(self) -> float:
        """From a frame to the start of braking, at the present interval between frames."""
        braking = self._braking
        confirming_s = max(braking.confirm_time_s, (braking.brake_confirm_frames - 1) * self._interval_s)
        return self.latency_s + braking.reaction_time_s + confirming_s

    def _decide(self, frame: FrameDecision) -> FrameDecision:
        braking = self._braking
        frame = replace(frame, delay_s=self._delay_s())
        hazards = []
        for track in self._tracker.tracks:
            item = describe_track(track, frame.time_s, frame.ego, frame.corridor, braking)
            hazards.append(assess(track, item, frame.ego, braking, frame.delay_s, calibrated=self._camera.calibrated))
        kept = max((hazard.kept for hazard in hazards), default=State.SAFE)
        state = self._states.update(
            frame.time_s,
            max((hazard.wanted for hazard in hazards), default=State.SAFE),
            kept,
            urgent=any(hazard.urgent for hazard in hazards),
        )
        frame = replace(frame, objects=tuple(hazard.item for hazard in hazards))
        needed = max(braking.warn_confirm_frames, braking.brake_confirm_frames, self._settings.confirm_hits)
        if state is State.SAFE and self._frames_with_data < needed:
            return replace(frame, reason=f"starting: frame {self._frames_with_data} of {needed} needed for a decision")
        in_corridor = [hazard for hazard in hazards if hazard.item.in_corridor]
        frame = replace(frame, state=state, cause=self._cause(frame.time_s, state, hazards))
        obstacle = max(in_corridor, key=lambda hazard: hazard.urgency, default=None)
        if obstacle is None:
            return replace(frame, reason=_reason(frame, "nothing in the corridor"))
        return replace(
            frame,
            obstacle=obstacle.item,
            reason=_reason(frame, describe_obstacle(obstacle.item)),
            required_deceleration_mps2=(None if frame.ego.speed_mps is None else obstacle.measure.value(State.BRAKE)),
            time_to_collision_s=obstacle.item.ttc_s,
        )

    def _cause(self, time_s: float, state: State, hazards: Sequence[Hazard]) -> Cause | None:
        """The cause of a state: what calls for it in this frame, or else what called for it last."""
        if state < State.WARN:
            self._causes.clear()
            return None
        calling = [hazard for hazard in hazards if hazard.wanted >= state]
        if calling:
            self._causes[state] = max(calling, key=lambda hazard: hazard.urgency).cause(time_s)
        cause = self._causes.get(state) or self._causes.get(State.BRAKE)
        return None if cause is None else replace(cause, held=not calling)

    def _without_data(self, frame: FrameDecision) -> FrameDecision:
        """Decide on a frame without data: WARN and BRAKE are held, but the frame is never SAFE."""
        held = self._states.held(frame.time_s)
        if held is State.SAFE:
            return frame
        frame = replace(frame, state=held, cause=self._cause(frame.time_s, held, ()))
        return replace(frame, reason=f"{frame.reason}; {_reason(frame, 'held')}")


def _reason(frame: FrameDecision, without_cause: str) -> str:
    return without_cause if frame.cause is None else explain(frame.cause, frame.time_s)


def gate_class_ids(labels: Sequence[str], classes: Collection[str]) -> frozenset[int]:
    """Class ids of the classes to brake for.

    Args:
        labels: Class names by id, the background first.
        classes: ``braking.classes`` of the configuration.

    Raises:
        ConfigError: A class is not among the labels; the message names the nearest one.
    """
    for name in classes:
        if name not in labels[1:]:
            nearest = difflib.get_close_matches(name, labels[1:], n=1, cutoff=0.5)
            hint = f"did you mean '{nearest[0]}'?" if nearest else "see the file at labels_path"
            raise ConfigError(f"braking.classes: got '{name}', expected a class of the model; {hint}")
    return frozenset(labels.index(name) for name in classes)
