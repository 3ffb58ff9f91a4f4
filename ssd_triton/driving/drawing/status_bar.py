"""The status bar: times, latency and lost frames of the run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ssd_triton.common.arrays import UInt8Array
from ssd_triton.driving.drawing.notices import Notice
from ssd_triton.media.drawing.canvas import INK, MUTED, fill, line_width_px, put_text, rectangle_corners, text_size_px
from ssd_triton.media.drawing.text import text_width_px


class StageRate(NamedTuple):
    """Milliseconds per frame and sustainable frames per second of a stage; None while unknown."""

    name: str
    ms: float | None
    fps: float | None


@dataclass(frozen=True)
class RunStatus:
    """Present figures of the run.

    Attributes:
        rates: Rates of the stages, of which unknown ones are left out; the last one is the whole pipeline's.
        latency_ms: From camera to decision, for this frame.
        latency_is_measured: Whether the latency was measured; otherwise it is the configuration's assumption.
        dropped_frames: Frames dropped so far.
        frames_without_data: Frames so far that could not be decoded or got no answer.
        camera: Calibration of the camera, in words.
        notices: Notices in force, to be drawn below the banner.
    """

    rates: Sequence[StageRate]
    latency_ms: float
    latency_is_measured: bool
    dropped_frames: int
    frames_without_data: int
    camera: Sequence[str] = ()
    notices: Sequence[Notice] = ()

    def parts(self) -> list[str]:
        """A short text for each figure."""
        *stages, pipeline = self.rates
        kind = "" if self.latency_is_measured else " (assumed)"
        return [
            *(f"{stage.name} {stage.ms:.1f} ms" for stage in stages if stage.ms is not None),
            f"{'-' if pipeline.fps is None else format(pipeline.fps, '.1f')} fps",
            f"latency {self.latency_ms:.0f} ms{kind}",
            f"dropped {self.dropped_frames}",
            f"without data {self.frames_without_data}",
            *self.camera,
        ]


def status_height_px(size_px: tuple[int, int], status: RunStatus) -> int:
    """Height of the status bar in an image of a size."""
    width, height = size_px
    # The banner's frame covers the lowest rows.
    return _line_px(height) * len(_lines(status, width, height)) + 2 * line_width_px(height)


def draw_status(canvas: UInt8Array, status: RunStatus) -> None:
    """Draw the figures of the run along the lower edge of an image, in as many lines as needed.

    Args:
        canvas: UINT8 [H, W, 3], RGB; drawn into.
        status: The figures.
    """
    height, width = canvas.shape[:2]
    size_px, top = text_size_px(height), height - status_height_px((width, height), status)
    fill(canvas, rectangle_corners(0, top, width, height), INK, 0.72)
    for number, text in enumerate(_lines(status, width, height)):
        put_text(canvas, (size_px * 0.7, top + _line_px(height) * (number + 0.5)), text, size_px, MUTED)


def _line_px(image_height_px: int) -> int:
    return round(text_size_px(image_height_px) * 1.4)


def _lines(status: RunStatus, width_px: int, height_px: int) -> list[str]:
    size_px = text_size_px(height_px)
    return _fill_lines(status.parts(), size_px, width_px - 1.4 * size_px)


def _fill_lines(parts: Sequence[str], size_px: int, width_px: float) -> list[str]:
    lines: list[str] = []
    for part in parts:
        longer = f"{lines[-1]}  ·  {part}" if lines else part
        if not lines or text_width_px(longer, size_px) <= width_px:
            lines[-1:] = [longer]
        else:
            lines.append(part)
    return lines
