"""The loop of the braking demonstration: read, detect, decide, draw, write."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ssd_triton import cli
from ssd_triton.arrays import UInt8Array
from ssd_triton.braking.decision import State, decide, gate_class_ids, locate
from ssd_triton.braking.geometry import GroundCamera
from ssd_triton.braking.timing import StageSummary, StageTimes
from ssd_triton.client.ahead import submit_ahead
from ssd_triton.config import BrakingConfig, CameraConfig
from ssd_triton.detections import Detections
from ssd_triton.drawing import Scene, scene_size_px
from ssd_triton.errors import UserError
from ssd_triton.files import relative_to_cwd
from ssd_triton.video import Frame, VideoSource, VideoWriter, open_source
from ssd_triton.video.window import Window


class FrameDetector(Protocol):
    """What detects: :class:`ssd_triton.client.DetectorClient`."""

    def submit_frame(self, frame_rgb: UInt8Array) -> Future[Detections]:
        """Start to detect in UINT8 [H, W, 3] RGB."""


@dataclass(frozen=True)
class DemoSettings:
    """What the demo goes by.

    Attributes:
        labels: Class names by id, the background first.
        camera: How the camera is mounted.
        braking: When to warn and to brake.
        score_thresh: Detections with a score above it count.
        in_flight: Frames to have under way at once, at least 1.

    Raises:
        ConfigError: A class to brake for is not among the labels.
    """

    labels: tuple[str, ...]
    camera: CameraConfig
    braking: BrakingConfig
    score_thresh: float
    in_flight: int

    def __post_init__(self) -> None:
        gate_class_ids(self.labels, self.braking.classes)


@dataclass(frozen=True)
class DemoSummary:
    """What came of a run.

    Attributes:
        frames: Frames written.
        undecodable_frames: Frames of the source that were skipped because they could not be decoded.
        state_counts: Frames by state.
        stages: Times by the name of the stage.
        wall_s: Seconds from the first frame's reading to the last one's writing.
        output: The video.
        interrupted: Whether Ctrl-C ended the run.
    """

    frames: int
    undecodable_frames: int
    state_counts: Mapping[State, int]
    stages: Mapping[str, StageSummary]
    wall_s: float
    output: Path
    interrupted: bool

    def __str__(self) -> str:
        """A table, a line for each figure."""
        end = ", interrupted" if self.interrupted else ""
        states = ", ".join(f"{state.name} {self.state_counts.get(state, 0)}" for state in State)
        stages = (f"{name:<13}{times.median_ms:>9.1f} {times.p95_ms:>9.1f}" for name, times in self.stages.items())
        return "\n".join(
            (
                f"frames       {self.frames} in {self.wall_s:.1f} s ({self.frames / self.wall_s:.1f} fps){end}",
                f"undecodable  {self.undecodable_frames}",
                f"states       {states}",
                "stage        median ms    p95 ms",
                *stages,
                f"output       {relative_to_cwd(self.output)}",
            )
        )


def open_demo_source(spec: str | None, *, output: Path, image_folder_fps: float) -> VideoSource:
    """Open the source of the demo, as :func:`ssd_triton.video.open_source` does.

    Raises:
        UserError: No source is given, or it is the file to be written.
        VideoError: It cannot be read.
    """
    if spec is None:
        raise UserError(
            "no clip given; expected a video file, a folder of images or a camera index; run: make demo "
            "VIDEO=path/to/clip.mp4"
        )
    if Path(spec).resolve() == output.resolve():
        raise UserError(f"{relative_to_cwd(output)}: would be overwritten while it is read; give another --output")
    return open_source(spec, image_folder_fps=image_folder_fps)


def open_demo_writer(source: VideoSource, output: Path) -> VideoWriter:
    """Prepare to write the frames that the demo makes of a source.

    Raises:
        VideoError: The output cannot be written there.
    """
    return VideoWriter(output, scene_size_px(source.size_px), source.fps)


def run_demo(
    source: VideoSource,
    client: FrameDetector,
    writer: VideoWriter,
    settings: DemoSettings,
    window: Window | None = None,
) -> DemoSummary:
    """Write the source's frames with detections, decision and the road from above.

    Frames are sent ahead, up to ``settings.in_flight`` of them, and drawn in order. Ctrl-C ends the run early; the
    frames until then are written.

    Args:
        source: An open source.
        client: Detects.
        writer: Prepared by :func:`open_demo_writer`.
        settings: What to go by.
        window: Shows the frames as well; closing it ends the run.

    Raises:
        KeyboardInterrupt: Ctrl-C before the first frame was written.
        VideoError: The source stopped working, or the output cannot be written.
    """
    annotator = _Annotator(source.size_px, settings)
    times, states, interrupted, start_s = StageTimes(settings.in_flight), Counter[State](), False, time.perf_counter()
    answers = _detect_ahead(source, client, settings.in_flight, times)
    with writer, window or nullcontext():
        try:
            for frame, answer in cli.progress(answers, total=source.frame_count, description="demo", unit="frames"):
                picture, state = annotator.annotate(frame.image_rgb, answer, times)
                with times.measure("write"):
                    writer.write(picture, frame.time_s)
                times.finish_frame()
                states[state] += 1
                if window is not None and not window.show(picture):
                    break
        except KeyboardInterrupt:
            if not states:
                raise
            interrupted = True
    return DemoSummary(
        frames=states.total(),
        undecodable_frames=source.undecodable_frames,
        state_counts=states,
        stages=times.summary(),
        wall_s=time.perf_counter() - start_s,
        output=writer.path,
        interrupted=interrupted,
    )


class _Annotator:
    """Decides on the frames of one source, and draws them."""

    def __init__(self, size_px: tuple[int, int], settings: DemoSettings) -> None:
        self._settings = settings
        self._class_ids = gate_class_ids(settings.labels, settings.braking.classes)
        self._camera = GroundCamera(*size_px, **settings.camera.model_dump())
        self._scene = Scene(self._camera, settings.braking, settings.labels)

    def annotate(self, image_rgb: UInt8Array, answer: Detections, times: StageTimes) -> tuple[UInt8Array, State]:
        """Give the picture of a frame, UINT8 [H, W + panel, 3] RGB, and its state."""
        with times.measure("decide"):
            detections = answer.filter(score_thresh=self._settings.score_thresh)
            objects = locate(
                detections,
                self._settings.labels,
                self._camera,
                class_ids=self._class_ids,
                corridor_half_width_m=self._settings.braking.corridor_half_width_m,
            )
            decision = decide(objects, self._settings.braking)
        with times.measure("draw"):
            picture = self._scene.compose(
                image_rgb,
                detections,
                objects,
                decision,
                times.recent(),
            )
        return picture, decision.state


def _detect_ahead(
    source: VideoSource, client: FrameDetector, in_flight: int, times: StageTimes
) -> Iterator[tuple[Frame, Detections]]:
    """Yield frames with their detections in order, while the ones after them are on their way."""

    def submit(frame: Frame) -> Future[Detections]:
        start_s = time.perf_counter()
        future = client.submit_frame(frame.image_rgb)
        future.add_done_callback(lambda _: times.add("detect", start_s))
        return future

    for frame, future in submit_ahead(_timed(source, times), submit, in_flight):
        yield frame, future.result()


def _timed(source: VideoSource, times: StageTimes) -> Iterator[Frame]:
    """Yield the source's frames, noting how long each took to read."""
    start_s = time.perf_counter()
    for frame in source:
        times.add("read", start_s)
        yield frame
        start_s = time.perf_counter()
