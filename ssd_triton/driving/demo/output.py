"""Where the demo reads from and writes to."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ssd_triton.common.errors import UserError
from ssd_triton.common.files import relative_to_cwd
from ssd_triton.config import Config
from ssd_triton.driving.braking.ego import EgoSource, load_ego_csv
from ssd_triton.driving.drawing.frame import frame_size_px
from ssd_triton.media.video import VideoSource, VideoWriter, open_source

DEFAULT_CLIP = "default_clip.mp4"
"""Name of the rendered clip, in the folder of the output."""


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


def default_input(config: Config, labels: Sequence[str], output: Path) -> tuple[str, EgoSource]:
    """The clip that the project renders itself, as for :func:`open_demo_source`, and the motion of its car.

    Args:
        config: Its camera, world, braking and tracking shape the clip.
        labels: Class names by id.
        output: The clip lies in the same folder, and is rendered again only when something it depends on changed.

    Raises:
        UserError: It cannot be rendered or written there.
    """
    from ssd_triton.simulation.clip import default_clip

    path = output.parent / DEFAULT_CLIP
    logging.info("no clip given: %s is drawn by the scenario simulator", relative_to_cwd(path))
    clip = default_clip(path, config, labels)
    return str(clip.path), load_ego_csv(clip.ego_table, config.demo.max_ego_gap_s)


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
