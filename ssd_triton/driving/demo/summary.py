"""The summary of a run of the demo."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ssd_triton.common.errors import UserError
from ssd_triton.common.files import relative_to_cwd
from ssd_triton.driving.braking.state import State
from ssd_triton.driving.demo.output import DemoOutputs
from ssd_triton.driving.demo.timing import Percentiles
from ssd_triton.driving.drawing.notices import NoticeKind


@dataclass(frozen=True)
class DemoSummary:
    """Figures of a run.

    Attributes:
        frames: Frames with a decision, including those without data.
        dropped_frames: Frames dropped in real time, before they were sent.
        undecodable_frames: Frames of the source that could not be decoded.
        retimed_frames: Frames whose timestamp was missing or not rising.
        unanswered_frames: Frames without an answer in time.
        speedless_frames: Frames decided without the ego speed, by the growth of images alone.
        state_counts: Number of frames by state.
        first_s: Video time at which each state was first reached.
        disagreements: Frames in which the obstacle's two times to collision disagree.
        camera: Pitch of the camera with its uncertainty, in words.
        cuts: Number of cuts in the source.
        notice_frames: Number of frames with each kind of notice.
        lowest_rate_hz: Least number of decisions with data in a second; None in a run too short for it.
        drive: Whether the car reacted to the decisions, and how its drive ended.
        stages: Times by stage.
        busiest: The stages that hold up the others, and their share of the time; None in real time.
        latency: From camera to decision; None where it was not measured.
        assumed_latency_s: Latency used where it was not measured.
        wall_s: From reading the first frame to writing the last one.
        outputs: The files.
        has_timeline: Whether the plot was drawn.
        interrupted: Whether Ctrl-C ended the run.
        failure: Failure of the server or the source that ended the run early.
    """

    frames: int
    dropped_frames: int
    undecodable_frames: int
    retimed_frames: int
    unanswered_frames: int
    speedless_frames: int
    state_counts: Mapping[State, int]
    first_s: Mapping[State, float]
    disagreements: int
    camera: str
    cuts: int
    notice_frames: Mapping[NoticeKind, int]
    lowest_rate_hz: float | None
    drive: str
    stages: Mapping[str, Percentiles]
    busiest: tuple[str, float] | None
    latency: Percentiles | None
    assumed_latency_s: float
    wall_s: float
    outputs: DemoOutputs
    has_timeline: bool
    interrupted: bool
    failure: UserError | None

    def __str__(self) -> str:
        """A table with a line for each figure."""
        end = ", interrupted" if self.interrupted else ""
        states = ", ".join(f"{state.name} {self.state_counts.get(state, 0)}" for state in State)
        first = ", ".join(
            f"{state.name} {f'at {self.first_s[state]:.2f} s' if state in self.first_s else 'never'}"
            for state in (State.WARN, State.BRAKE)
        )
        latency = f"{self.assumed_latency_s * 1e3:.0f} ms, assumed (measured with --real-time)"
        if self.latency is not None:
            latency = f"p50 {self.latency.p50_ms:.1f} ms, p95 {self.latency.p95_ms:.1f} ms, from camera to decision"
        notices = ", ".join(f"{kind} {frames}" for kind, frames in self.notice_frames.items())
        rate = "not judged" if self.lowest_rate_hz is None else f"{self.lowest_rate_hz:.1f} decisions a second"
        timeline = relative_to_cwd(self.outputs.timeline)
        busiest = "not judged" if self.busiest is None else f"{self.busiest[0]}: {self.busiest[1]:.0%} of the time"
        return "\n".join(
            (
                f"frames       {self.frames} in {self.wall_s:.1f} s ({self.frames / self.wall_s:.1f} fps){end}",
                f"dropped      {self.dropped_frames}",
                f"undecodable  {self.undecodable_frames}",
                f"retimed      {self.retimed_frames}",
                f"unanswered   {self.unanswered_frames}",
                f"no speed     {self.speedless_frames}",
                f"states       {states}",
                f"first        {first}",
                f"TTC differs  in {self.disagreements} frames",
                f"drive        {self.drive}",
                f"camera       {self.camera}",
                f"cuts         {self.cuts}",
                f"notices      {f'{notices} frames' if notices else 'none'}",
                f"least rate   {rate}",
                f"latency      {latency}",
                f"busiest      {busiest}",
                "stage           p50 ms    p95 ms",
                *(f"{name:<13}{times.p50_ms:>9.1f} {times.p95_ms:>9.1f}" for name, times in self.stages.items()),
                f"events       {relative_to_cwd(self.outputs.events)}",
                f"timeline     {timeline if self.has_timeline else 'not drawn: matplotlib is not installed'}",
                f"output       {relative_to_cwd(self.outputs.video)}",
            )
        )
