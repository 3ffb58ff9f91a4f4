"""Detection of images that are stored on their side, but were annotated as EXIF turns them."""

from __future__ import annotations

from collections.abc import Sequence

from ssd_triton.common.errors import listing
from ssd_triton.evaluation.annotations import Image
from ssd_triton.media.images import exif_orientation

_FIRST_ON_ITS_SIDE = 5
"""EXIF orientations from here on exchange width and height."""


def is_annotated_upright(image: Image, size_px: tuple[int, int], encoded: bytes) -> bool:
    """Whether an image has the annotated width and height only after EXIF has turned it.

    Args:
        image: The image's entry in the annotations.
        size_px: Stored width and height.
        encoded: Content of the file.
    """
    width_px, height_px = size_px
    turned = width_px != height_px and image.width == height_px and image.height == width_px
    return turned and exif_orientation(encoded) >= _FIRST_ON_ITS_SIDE


def upright_refusal(source: str, file_names: Sequence[str], count: int) -> str:
    """Error message for a dataset with such images.

    Args:
        source: The annotation file.
        file_names: The images at fault.
        count: Number of images in all.
    """
    return (
        f"{source}: {len(file_names)} of {count} images are annotated upright but stored on their side, with EXIF to "
        f"turn them: {listing(file_names)}; expected boxes of the stored pixels, since EXIF is not applied here: turn "
        "the files themselves, for instance with 'exiftran -ai' or 'mogrify -auto-orient'"
    )
