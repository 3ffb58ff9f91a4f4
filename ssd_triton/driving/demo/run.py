"""The loop of the braking demonstration: read, detect, decide, draw, write."""

from __future__ import annotations

import time
from collections import Counter, deque
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ssd_triton.client.errors import ClientError, ServerUnreachableError
from ssd_triton.common.arrays import UInt8Array
from ssd_triton.common.detections import Detections
from ssd_triton.common.errors import UserError, VideoError
from ssd_triton.common.progress import progress
from ssd_triton.common.units import KMH_PER_MPS
from ssd_triton.config import BrakingConfig, DemoConfig, TrackingConfig
from ssd_triton.driving.braking.decision import FrameDecision
from ssd_triton.driving.braking.ego import EgoMotion, EgoSource
from ssd_triton.driving.braking.pipeline import BrakingPipeline
from ssd_triton.driving.braking.state import State
from ssd_triton.driving.camera import Camera
from ssd_triton.driving.demo.background_writer import BackgroundWriter
from ssd_triton.driving.demo.events import EventLog
from ssd_triton.driving.demo.feed import Feed, FileFeed, FrameAnswer, FrameDetector, RealTimeFeed
from ssd_triton.driving.demo.notices import NoticeBoard
from ssd_triton.driving.demo.output import DemoOutputs
from ssd_triton.driving.demo.pace import Pace
from ssd_triton.driving.demo.picture_watch import PictureWatch
from ssd_triton.driving.demo.summary import DemoSummary
from ssd_triton.driving.demo.timeline import TimelinePoint, plot_timeline
from ssd_triton.driving.demo.timing import LONGEST_RECORD
from ssd_triton.driving.drawing.frame import FrameComposer
from ssd_triton.driving.drawing.status_bar import RunStatus
from ssd_triton.media.video import VideoSource, VideoWriter
from ssd_triton.media.video.window import Window


class ReactingCar(Protocol):
    """A car that is simulated while it is filmed, and whose camera is known exactly.

    Attributes:
        frames_ahead: Number of frames that can be drawn before the first of them needs a decision.
        outcome: How its drive ended, in words.
    """

    frames_ahead: int

    @property
    def outcome(self) -> str:
        """See the class."""

    def react(self, time_s: float, *, brake: bool) -> None:
        """Apply the decision on the frame at a time."""


@dataclass(frozen=True)
class DemoSettings:
    """Settings of the demo.

    Attributes:
        labels: Class names by id, the background first.
        camera: For images of the source's size. If it is not ``calibrated``, it is calibrated from the drive itself.
        ego: The ego's motion.
        braking: Thresholds of WARN and BRAKE.
        tracking: Parameters of tracking.
        demo: The section ``demo``.
        in_flight: Greatest number of frames in flight, at least 1; in real time at most ``demo.real_time_in_flight``.
        real_time: Whether to read a file at the pace of its timestamps, as from a camera.
        closed_loop: The filmed car, if it reacts to the decisions; None for a recording or a camera.
        assumed: What is guessed about the camera and cannot be estimated from a drive, in words; empty for nothing.

    Raises:
        ConfigError: A class to brake for is not among the labels, or has no size.
    """

    labels: tuple[str, ...]
    camera: Camera
    ego: EgoSource
    braking: BrakingConfig
    tracking: TrackingConfig
    demo: DemoConfig
    in_flight: int
    real_time: bool = False
    closed_loop: ReactingCar | None = None
    assumed: str = ""

    def __post_init__(self) -> None:
        self.pipeline()

    def pipeline(self) -> BrakingPipeline:
        """Make a pipeline with these settings."""
        return BrakingPipeline(self.camera, self.labels, self.braking, self.tracking, self.demo.assumed_latency_s)


def run_demo(
    source: VideoSource,
    client: FrameDetector,
    writer: VideoWriter,
    settings: DemoSettings,
    window: Window | None = None,
) -> DemoSummary:
    """Write the source as a video with detections, decisions and a bird's-eye view, and log the decisions.

    Frames are sent ahead and drawn in order; pictures are encoded in their own thread. Ctrl-C, an unreachable server or
    a failing source ends the run early. The output up to then is kept, and the summary reports the reason.

    Args:
        source: An open source.
        client: The detector.
        writer: Made by :func:`ssd_triton.driving.demo.output.open_demo_writer`; the other files are written beside it.
        settings: Settings.
        window: Also shows the frames; closing it ends the run.

    Raises:
        KeyboardInterrupt: Ctrl-C before the first decision.
        ClientError: No frame was answered.
        VideoError: The source failed before its first frame, or the output cannot be written.
    """
    feed = _feed(source, client, settings)
    outputs = DemoOutputs(writer.path)
    interrupted, failure, start_s = False, None, time.perf_counter()
    with ExitStack() as stack:
        pictures = stack.enter_context(BackgroundWriter(writer, feed.times))
        events = stack.enter_context(EventLog(outputs.events))
        if window is not None:
            stack.enter_context(window)
        run = _DemoRun(source, feed, settings, pictures=pictures, events=events, window=window)
        answers = stack.enter_context(closing(feed.answers()))
        try:
            for answer in progress(answers, total=source.frame_count, description="demo", unit="frames"):
                if not run.take(answer):
                    break
            run.finish()
        except KeyboardInterrupt:
            if not run.frames:
                raise
            interrupted = True
        except (ClientError, VideoError) as error:
            if not run.frames:
                raise
            failure = error
    wall_s = time.perf_counter() - start_s
    title = f"{Path(source.name).name}: decisions"
    has_timeline = plot_timeline(outputs.timeline, run.points, title, settings.braking.deceleration_mps2)
    return run.summary(outputs, wall_s, has_timeline, interrupted, failure)


def _feed(source: VideoSource, client: FrameDetector, settings: DemoSettings) -> Feed:
    if not settings.real_time and not source.is_live:
        ahead = settings.in_flight if settings.closed_loop is None else settings.closed_loop.frames_ahead
        return FileFeed(source, client, min(settings.in_flight, ahead))
    in_flight = min(settings.in_flight, settings.demo.real_time_in_flight)
    return RealTimeFeed(source, client, in_flight, settings.demo.max_age_s)


class _DemoRun:
    """Decides on the frames of one source, draws them, and collects the figures."""

    def __init__(
        self,
        source: VideoSource,
        feed: Feed,
        settings: DemoSettings,
        *,
        pictures: BackgroundWriter,
        events: EventLog,
        window: Window | None,
    ) -> None:
        self._source, self._feed, self._settings, self._times = source, feed, settings, feed.times
        self._pictures, self._events, self._window = pictures, events, window
        self._pipeline = settings.pipeline()
        self._composer = FrameComposer(settings.camera, settings.braking, settings.demo.view_range_m)
        self._watch = None if settings.closed_loop is not None else PictureWatch(settings.camera, settings.assumed)
        self._notices, self._pace = NoticeBoard(), Pace(settings.demo.min_rate_hz)
        if settings.closed_loop is None and not source.is_live:
            self._notices.put("REPLAY", "a recording: its car does not react to the decisions")
        self._last_image: UInt8Array | None = None
        self._last_time_s = 0.0
        self._answered_s = time.monotonic()
        self._last_problem: ClientError | None = None
        self._answered_frames = self._undecodable_seen = self._unanswered = 0
        self._speedless = self._disagreements = 0
        self._states: Counter[State] = Counter()
        self._first_s: dict[State, float] = {}
        self.points: deque[TimelinePoint] = deque(maxlen=LONGEST_RECORD)

    @property
    def frames(self) -> int:
        """Frames decided on so far."""
        return self._states.total()

    def take(self, answer: FrameAnswer) -> bool:
        """Decide on a frame and on the frames lost before it; False once the user has closed the window.

        Raises:
            ServerUnreachableError: No answer for ``demo.server_deadline_s``.
        """
        frame = answer.captured.frame
        self._step_over(answer.captured.undecodable_before - self._undecodable_seen, frame.time_s)
        self._undecodable_seen = answer.captured.undecodable_before
        self._last_image = frame.image_rgb
        if self._feed.is_real_time:
            self._pipeline.latency_s = self._pace.add_latency(time.monotonic() - answer.captured.captured_s)
        now_s = time.monotonic() if self._feed.is_real_time else frame.time_s
        self._pace.add(now_s, has_data=answer.detections is not None)
        self._notices.put("DEGRADED", self._pace.doubt, self._pace.figures)
        is_shown = self._step(frame.image_rgb, frame.time_s, frame.index, answer.detections)
        self._note(answer)
        return is_shown

    def finish(self) -> None:
        """Report frames that were lost at the end.

        Raises:
            ClientError: No frame was answered.
        """
        if self._source.undecodable_frames > self._undecodable_seen:
            # Their number is an estimate, so a single frame without data represents them.
            self._step_over(1, self._last_time_s + 2 / self._source.fps)
        if not self._answered_frames and self._last_problem is not None:
            raise self._last_problem

    def summary(
        self, outputs: DemoOutputs, wall_s: float, has_timeline: bool, interrupted: bool, failure: UserError | None
    ) -> DemoSummary:
        """The figures of the run."""
        return DemoSummary(
            frames=self.frames,
            dropped_frames=self._feed.dropped,
            undecodable_frames=self._source.undecodable_frames,
            retimed_frames=self._source.retimed_frames,
            unanswered_frames=self._unanswered,
            speedless_frames=self._speedless,
            state_counts=self._states,
            first_s=self._first_s,
            disagreements=self._disagreements,
            camera=self._camera_text(),
            cuts=0 if self._watch is None else self._watch.cuts,
            notice_frames=self._notices.frames,
            lowest_rate_hz=self._pace.lowest_hz,
            drive=self._drive_text(),
            stages=self._times.summary(),
            busiest=None if self._feed.is_real_time else self._times.busiest(wall_s),
            latency=self._pace.latency,
            assumed_latency_s=self._settings.demo.assumed_latency_s,
            wall_s=wall_s,
            outputs=outputs,
            has_timeline=has_timeline,
            interrupted=interrupted,
            failure=failure,
        )

    def _camera_text(self) -> str:
        """Where the camera's calibration comes from."""
        return "known exactly: the drive is rendered" if self._watch is None else ", ".join(self._watch.calibration)

    def _drive_text(self) -> str:
        """Whether the car reacted, and how its drive ended."""
        if self._settings.closed_loop is not None:
            return f"closed loop: {self._settings.closed_loop.outcome}"
        return "live" if self._source.is_live else "replay: the car does not react"

    def _note(self, answer: FrameAnswer) -> None:
        """Count the answers, and end the run when none has come for too long.

        Raises:
            ServerUnreachableError: See :meth:`take`.
        """
        now_s = time.monotonic()
        if answer.detections is not None:
            self._answered_frames += 1
            self._answered_s = now_s
            return
        self._unanswered += 1
        self._last_problem = answer.problem
        silent_s = now_s - self._answered_s
        if silent_s > self._settings.demo.server_deadline_s:
            raise ServerUnreachableError(
                f"no answer for {silent_s:.0f} s, expected one within demo.server_deadline_s "
                f"({self._settings.demo.server_deadline_s:g} s); the last problem: {answer.problem}"
            )

    def _look(self, watch: PictureWatch, image_rgb: UInt8Array, time_s: float, ego: EgoMotion) -> None:
        """Check the picture for cuts, a better calibration, and contradictions to the speed."""
        before = watch.camera
        is_cut = watch.look(time_s, image_rgb, ego)
        if is_cut:
            self._pipeline.reset()
        if watch.camera is not before:
            self._pipeline.set_camera(watch.camera)
            self._composer.camera = watch.camera
        self._notices.put("CUT", "another scene: tracks and calibration begin anew" if is_cut else "")
        self._notices.put("UNCALIBRATED", watch.doubt_of_camera, f"{watch.calibration[0]}; no BRAKE on range alone")
        speed = "" if ego.speed_mps is None else f"{ego.speed_mps * KMH_PER_MPS:.0f} km/h"
        self._notices.put("SPEED", watch.doubt_of_speed, speed)

    def _step_over(self, lost: int, until_s: float) -> None:
        """Decide on frames that could not be decoded, spaced evenly over their gap."""
        if self._last_image is None:
            return
        start_s = self._last_time_s
        for number in range(1, lost + 1):
            time_s = start_s + (until_s - start_s) * number / (lost + 1)
            self._step(self._last_image, time_s, None, None)

    def _step(self, image_rgb: UInt8Array, time_s: float, index: int | None, detections: Detections | None) -> bool:
        """Decide, draw and write one frame."""
        ego = self._settings.ego.at(time_s)
        if index is not None and self._watch is not None:
            with self._times.measure("watch"):
                self._look(self._watch, image_rgb, time_s, ego)
        with self._times.measure("decide"):
            decision = self._pipeline.step(time_s, detections, ego)
        if self._settings.closed_loop is not None:
            self._settings.closed_loop.react(time_s, brake=decision.state is State.BRAKE)
        self._record(decision, index)
        with self._times.measure("draw"):
            status = RunStatus(
                rates=self._times.recent(),
                latency_ms=self._pipeline.latency_s * 1e3,
                latency_is_measured=self._feed.is_real_time,
                dropped_frames=self._feed.dropped,
                frames_without_data=self._pipeline.frames_without_data,
                camera=() if self._watch is None else self._watch.calibration,
                notices=self._notices.in_force,
            )
            shown = None if detections is None else detections.filter(score_thresh=self._settings.demo.score_thresh)
            picture = self._composer.compose(image_rgb, shown, decision, status)
        self._pictures.write(picture, time_s)
        self._times.finish_frame()
        self._last_time_s = time_s
        return self._window is None or self._window.show(picture)

    def _record(self, decision: FrameDecision, index: int | None) -> None:
        camera = self._settings.camera if self._watch is None else self._watch.camera
        measured = self._feed.is_real_time
        self._events.add(decision, index, camera, self._notices.in_force, latency_is_measured=measured)
        self._notices.count_frame()
        self._states[decision.state] += 1
        self._first_s.setdefault(decision.state, decision.time_s)
        self._speedless += decision.ego.speed_mps is None
        self._disagreements += decision.obstacle is not None and decision.obstacle.disagreement
        self.points.append(TimelinePoint.of(decision))
