"""A detector that answers as a test wants, clips, and runs of the demo with them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import av
import numpy as np

from ssd_triton.common.arrays import UInt8Array
from ssd_triton.common.detections import Detections
from ssd_triton.config import Config
from ssd_triton.driving.braking.ego import ConstantEgo, EgoMotion, EgoSource
from ssd_triton.driving.camera import Camera
from ssd_triton.driving.demo.feed import FrameDetector
from ssd_triton.driving.demo.output import open_demo_source, open_demo_writer
from ssd_triton.driving.demo.run import DemoSettings, run_demo
from ssd_triton.driving.demo.summary import DemoSummary
from ssd_triton.media.video import VideoWriter, open_source

TIMES_S = (0.0, 0.1, 0.2, 0.35, 0.45, 0.6)
FRAMES = len(TIMES_S)


def write_pan(path: Path, photograph_rgb: np.ndarray) -> Path:
    """Write a short clip that pans over the photograph, with uneven frame times."""
    with VideoWriter(path, (480, 560), 10) as writer:
        for index in range(FRAMES):
            writer.write(
                np.ascontiguousarray(photograph_rgb[2 * index : 560 + 2 * index, :480]),
                0.1 * index + 0.05 * (index > 2),
            )
    return path


SIZE_PX = (320, 180)
CAMERA = Camera.from_fov(SIZE_PX, 60, 1.3)
Answering = Callable[[int], Detections]


def nothing(_: int) -> Detections:
    return Detections.empty()


class Detector:
    """Answers from threads, as a client does: after a while, in any order, with an error, or never.

    What happens with answers of a given delay cannot be arranged with a server, and is what is tested.
    """

    def __init__(
        self, answering: Answering = nothing, *, delay_s: float = 0.0, interrupt_at: int | None = None
    ) -> None:
        self.frames = 0
        self._answering = answering
        self._delay_s = delay_s
        self._interrupt_at = interrupt_at
        self._executor = ThreadPoolExecutor(8)

    def submit_frame(self, frame_rgb: UInt8Array) -> Future[Detections]:
        """Answer later, or do as if Ctrl-C were pressed."""
        index = self.frames
        if index == self._interrupt_at:
            raise KeyboardInterrupt
        self.frames += 1
        return self._executor.submit(self._answer, index)

    def _answer(self, index: int) -> Detections:
        # Of two neighbouring frames the later is answered first.
        time.sleep(self._delay_s or (0.0 if index % 2 else 0.01))
        return self._answering(index)


def write_clip(path: Path, times_s: Sequence[float], size_px: tuple[int, int] = SIZE_PX) -> Path:
    """Noise, so that every frame takes up room in the file."""
    random = np.random.default_rng(1)
    with VideoWriter(path, size_px, 25) as writer:
        for time_s in times_s:
            writer.write(random.integers(0, 255, (size_px[1], size_px[0], 3), np.uint8), time_s)
    return path


def raw_stream(clip: Path) -> bytes:
    """The same pictures as a raw H.264 stream, which has no times and may be joined to another."""
    raw = clip.with_suffix(".h264")
    with av.open(str(clip)) as source, av.open(str(raw), "w", format="h264") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    return raw.read_bytes()


def demo_settings(
    config: Config,
    labels: tuple[str, ...],
    *,
    real_time: bool = False,
    ego: EgoSource | None = None,
    camera: Camera = CAMERA,
    assumed: str = "",
    **demo: object,
) -> DemoSettings:
    return DemoSettings(
        labels=labels,
        camera=camera,
        ego=ego or ConstantEgo(EgoMotion(15.0)),
        braking=config.braking,
        tracking=config.tracking,
        demo=config.demo.model_copy(update=demo),
        in_flight=4,
        real_time=real_time,
        assumed=assumed,
    )


def run(
    config: Config,
    labels: tuple[str, ...],
    clip: Path,
    detector: FrameDetector,
    *,
    real_time: bool = False,
    ego: EgoSource | None = None,
    **demo: object,
) -> DemoSummary:
    """Run the demo on a clip; its files are out.* beside it."""
    return run_with(demo_settings(config, labels, real_time=real_time, ego=ego, **demo), clip, detector)


def run_with(settings: DemoSettings, clip: Path, detector: FrameDetector) -> DemoSummary:
    """Run the demo on a clip with other settings."""
    output = clip.with_name("out.mp4")
    with open_demo_source(str(clip), output=output, image_folder_fps=10) as source:
        return run_demo(source, detector, open_demo_writer(source, output, "ultrafast"), settings)


def frames_of(path: Path) -> list[tuple[float, UInt8Array]]:
    with open_source(str(path), image_folder_fps=1) as source:
        return [(frame.time_s, frame.image_rgb) for frame in source]


def events_of(summary: DemoSummary) -> list[dict[str, object]]:
    return [json.loads(line) for line in summary.outputs.events.read_text().splitlines()]


def evenly(frames: int, fps: float = 25.0) -> list[float]:
    return [index / fps for index in range(frames)]
