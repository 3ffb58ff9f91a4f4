"""Real photographs on which exported models are checked."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
from PIL import Image

from ssd_triton.common.arrays import UInt8Array
from ssd_triton.common.errors import ExportError
from ssd_triton.common.files import relative_to_cwd
from ssd_triton.detector.protocol import preprocess
from ssd_triton.media.decoding import open_rgb
from ssd_triton.media.images import list_images, read_image

_SEED = 300


def photographs(folder: Path | None, count: int) -> UInt8Array:
    """Return UINT8 [count, 300, 300, 3] RGB: real images, resized as the protocol demands.

    Args:
        folder: A folder with images; the first ``count`` by name are read. None uses views of the photograph in
            matplotlib's sample data (Grace Hopper, U.S. Navy, public domain), which needs no download.
        count: Number of images.

    Raises:
        ExportError: The folder holds fewer images.
        ImageError: One of them cannot be read.
    """
    if folder is None:
        return _views_of_sample_photograph(count)
    return np.stack([preprocess(read_image(path), relative_to_cwd(path))[0] for path in first_images(folder, count)])


def first_images(folder: Path, count: int) -> list[Path]:
    """Return the first images of a folder by name.

    Raises:
        ExportError: The folder holds fewer.
    """
    found = list_images(folder)
    found.warn_of_skipped()
    if len(found.paths) < count:
        raise ExportError(
            f"got {len(found.paths)} images in {relative_to_cwd(folder)}, expected {count} or more: give another folder"
        )
    return list(found.paths[:count])


def sample_photograph() -> bytes:
    """Return the JPEG in matplotlib's sample data: 512 x 600 px, one person."""
    return (Path(mpl.get_data_path()) / "sample_data" / "grace_hopper.jpg").read_bytes()


def _views_of_sample_photograph(count: int) -> UInt8Array:
    """The whole photograph first, then crops of it; every other crop is mirrored."""
    image = open_rgb(sample_photograph())
    random = np.random.default_rng(_SEED)
    views = [image]
    while len(views) < count:
        side = int(random.integers(150, 500))
        left, top = int(random.integers(0, 512 - side)), int(random.integers(0, 600 - side))
        crop = image.crop((left, top, left + side, top + side))
        views.append(crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if len(views) % 2 else crop)
    return np.stack([np.array(view.resize((300, 300), Image.Resampling.BILINEAR)) for view in views[:count]])
