"""Makes the inputs for the models: real images, in the form that each model takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ssd_triton.common.files import relative_to_cwd
from ssd_triton.detector.export.samples import sample_photograph
from ssd_triton.detector.protocol import preprocess
from ssd_triton.measuring.sweeps.errors import SweepError
from ssd_triton.measuring.sweeps.perf_analyzer import bytes_element
from ssd_triton.media.decoding import open_rgb
from ssd_triton.media.images import list_images, read_served

_MAX_FRAMES = 4
"""Most different frames, since each has megabytes, which ``perf_analyzer`` reads as text."""
_DETECTIONS = ("num_detections", "detection_boxes", "detection_scores", "detection_classes")
OUTPUTS = {"ssd": _DETECTIONS, "ssd_frames": _DETECTIONS, "ssd_detector": ("loc", "conf")}
"""Output names by model."""


@dataclass(frozen=True)
class Inputs:
    """Batch elements and shapes for one model, for :class:`ssd_triton.measuring.sweeps.perf_analyzer.Load`."""

    elements: Sequence[Mapping[str, bytes]]
    shapes: Mapping[str, Sequence[int]] = field(default_factory=dict)


def read_images(folder: Path | None, count: int) -> list[bytes]:
    """Return encoded images: the first of a folder by name or, without a folder, the bundled photograph.

    Raises:
        SweepError: The folder holds fewer images.
        ImageError: One of them cannot be read.
    """
    if folder is None:
        return [sample_photograph()]
    found = list_images(folder)
    found.warn_of_skipped()
    if len(found.paths) < count:
        raise SweepError(
            f"got {len(found.paths)} images in {relative_to_cwd(folder)}, expected num_images ({count}) or more; give "
            "another folder"
        )
    return [read_served(path) for path in found.paths[:count]]


def make_inputs(model: str, images: Sequence[bytes], frame_size_px: tuple[int, int]) -> Inputs:
    """Convert images to inputs of a model.

    Args:
        model: ``ssd`` takes the files, ``ssd_detector`` preprocessed images, ``ssd_frames`` pixels that are resized to
            the size of a camera's frames.
        images: Encoded images.
        frame_size_px: Width and height of the frames.
    """
    if model == "ssd":
        return Inputs([{"IMAGE": bytes_element(image)} for image in images])
    if model == "ssd_detector":
        return Inputs([{"image": preprocess(image)[0].tobytes()} for image in images])
    width_px, height_px = frame_size_px
    frames = [np.asarray(open_rgb(image).resize((width_px, height_px))) for image in images[:_MAX_FRAMES]]
    return Inputs([{"FRAME": frame.tobytes()} for frame in frames], {"FRAME": (height_px, width_px, 3)})
