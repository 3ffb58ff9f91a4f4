"""Where the demo reads from and writes to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ssd_triton.common.errors import UserError
from ssd_triton.common.files import relative_to_cwd
from ssd_triton.driving.drawing.frame import frame_size_px
from ssd_triton.media.video import VideoSource, VideoWriter, open_source


@dataclass(frozen=True)
class DemoOutputs:
    """The files of a run, side by side.

    Attributes:
        video: The annotated video, ending in ``.mp4``.
    """

    video: Path

    @property
    def events(self) -> Path:
        """JSON lines."""
        return self.video.with_suffix(".events.jsonl")

    @property
    def timeline(self) -> Path:
        """The plot."""
        return self.video.with_suffix(".timeline.png")


def open_demo_source(spec: str, *, output: Path, image_folder_fps: float) -> VideoSource:
    """Open the source of the demo, as :func:`ssd_triton.media.video.open_source` does.

    Raises:
        UserError: It is the file to be written.
        VideoError: It cannot be read.
    """
    if Path(spec).resolve() == output.resolve():
        raise UserError(f"{relative_to_cwd(output)}: would be overwritten while it is read; give another --output")
    return open_source(spec, image_folder_fps=image_folder_fps)


def open_demo_writer(source: VideoSource, output: Path, preset: str) -> VideoWriter:
    """Prepare to write the frames that the demo makes of a source.

    Raises:
        VideoError: The output cannot be written there.
    """
    return VideoWriter(output, frame_size_px(source.size_px), source.fps, preset)
