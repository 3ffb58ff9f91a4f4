"""Rendered images from a folder or a clip, and the detections in them."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image as PilImage

from ssd_triton.client import DetectorClient, RequestRefusedError
from ssd_triton.common.arrays import UInt8Array
from ssd_triton.common.detections import Detections
from ssd_triton.common.files import relative_to_cwd
from ssd_triton.common.progress import progress
from ssd_triton.evaluation.annotations import Image
from ssd_triton.evaluation.errors import EvaluationError
from ssd_triton.media.decoding import decode_rgb
from ssd_triton.media.images import read_served
from ssd_triton.media.video.source import open_source
from ssd_triton.simulation.judging.visibility import JudgedFrame, RenderedAnnotations, read_rendered

_ANY_FPS = 10.0
"""Required, but without effect: clips have their own rate."""


class RenderedImages:
    """Rendered images with their annotations.

    Attributes:
        truth: Annotations of the chosen images.
    """

    def __init__(self, images: Path, annotations: Path, limit: int | None = None) -> None:
        """Read the annotations and check that the images exist.

        Args:
            images: A folder, or a video whose frames are the annotations' images in their order.
            annotations: As :class:`ssd_triton.simulation.truth_files.CocoWriter` writes them.
            limit: Number of images, spread evenly; None takes all.

        Raises:
            EvaluationError: The annotations are not of rendered images, or images are missing.
        """
        found = read_rendered(annotations)
        count = min(limit or len(found.images), len(found.images))
        self._places = [index * len(found.images) // count for index in range(count)]
        chosen = tuple(found.images[place] for place in self._places)
        ids = {image.id for image in chosen}
        self.truth: RenderedAnnotations = found.model_copy(
            update={"images": chosen, "annotations": tuple(one for one in found.annotations if one.image_id in ids)}
        )
        self._source = images
        if not images.exists():
            raise EvaluationError(
                f"images not found: {relative_to_cwd(images)}; draw them with ssd-triton render-dataset"
            )
        self._frames: dict[str, bytes] = {} if images.is_dir() else self._read_clip(len(found.images))
        missing = [] if self._frames else [one.file_name for one in chosen if not (images / one.file_name).is_file()]
        if missing:
            raise EvaluationError(
                f"{relative_to_cwd(images)} lacks {len(missing)} of {count} images that "
                f"{relative_to_cwd(annotations)} names, such as {missing[0]}; give the folder that belongs to it"
            )

    def __iter__(self) -> Iterator[bytes]:
        """Each chosen image, encoded, with a progress bar."""
        images = self.truth.images
        return (
            self._encoded(one) for one in progress(images, total=len(images), description="rendered", unit="images")
        )

    def pixels_of(self, frame: JudgedFrame) -> UInt8Array:
        """UINT8 [H, W, 3] RGB."""
        return decode_rgb(self._encoded(frame.image), frame.image.file_name)

    def _encoded(self, image: Image) -> bytes:
        return self._frames[image.file_name] if self._frames else read_served(self._source / image.file_name)

    def _read_clip(self, expected: int) -> dict[str, bytes]:
        """Read the chosen frames, and encode them without loss."""
        names = dict(zip(self._places, (image.file_name for image in self.truth.images), strict=True))
        frames: dict[str, bytes] = {}
        count = 0
        with open_source(str(self._source), image_folder_fps=_ANY_FPS) as source:
            for frame in source:
                count += 1
                if frame.index in names:
                    content = io.BytesIO()
                    PilImage.fromarray(frame.image_rgb).save(content, "PNG", compress_level=1)
                    frames[names[frame.index]] = content.getvalue()
        if count != expected:
            raise EvaluationError(
                f"{relative_to_cwd(self._source)} has {count} frames, expected the {expected} of its annotations; "
                "give the clip that was written with them"
            )
        return frames


def served(images: RenderedImages, client: DetectorClient) -> Iterator[Detections]:
    """Detect in each image through a server.

    Raises:
        EvaluationError: The server refuses an image.
        ClientError: The server fails.
    """
    for image, answer in zip(images.truth.images, client.map(images), strict=True):
        if isinstance(answer, RequestRefusedError):
            raise EvaluationError(f"{image.file_name}: {answer}; expected a rendered image that the server takes")
        yield answer


def offline(images: RenderedImages, weights: Path, backbone: str, labels: Sequence[str]) -> Iterator[Detections]:
    """Detect in each image with the offline reference.

    Raises:
        WeightsError: The weights cannot be loaded.
    """
    from ssd_triton.detector.network.ssd import ServedDetector
    from ssd_triton.detector.protocol import detect
    from ssd_triton.detector.weights.file import WeightsFile

    detector = ServedDetector(WeightsFile(weights).load_network(backbone, len(labels))).eval()
    for encoded in images:
        yield detect(detector, encoded)
