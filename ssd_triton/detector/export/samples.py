"""Inputs for checking exported models: real photographs, and predictions made to be hard."""

from __future__ import annotations

import io
from pathlib import Path

import matplotlib as mpl
import numpy as np
from PIL import Image

from ssd_triton.common.arrays import AnyArray, UInt8Array
from ssd_triton.common.errors import ExportError
from ssd_triton.common.files import relative_to_cwd
from ssd_triton.detector.network.boxes import NUM_DEFAULT_BOXES
from ssd_triton.detector.postprocessing.reference import preprocess

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
_SEED = 300


def photographs(folder: Path | None, count: int) -> UInt8Array:
    """UINT8 [count, 300, 300, 3] RGB: real images, resized as the protocol demands.

    Args:
        folder: Images of the user's, the first ``count`` by name; None takes views of the photograph that matplotlib
            carries in its sample data (Grace Hopper, U.S. Navy, public domain), so that a fresh clone has one.
        count: How many.

    Raises:
        ExportError: The folder holds fewer images.
    """
    if folder is None:
        return _views_of_sample_photograph(count)
    return np.stack([preprocess(path.read_bytes())[0] for path in first_images(folder, count)])


def first_images(folder: Path, count: int) -> list[Path]:
    """The first images of a folder by name.

    Raises:
        ExportError: It holds fewer.
    """
    paths = sorted(path for path in folder.glob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    if len(paths) < count:
        raise ExportError(f"got {len(paths)} images in {relative_to_cwd(folder)}, expected {count} or more")
    return paths[:count]


def sample_photograph() -> bytes:
    """The file that matplotlib carries: JPEG, 512 x 600 px, one person."""
    return (Path(mpl.get_data_path()) / "sample_data" / "grace_hopper.jpg").read_bytes()


def _views_of_sample_photograph(count: int) -> UInt8Array:
    """The whole photograph first, then crops of it, every other one mirrored."""
    image = Image.open(io.BytesIO(sample_photograph())).convert("RGB")
    random = np.random.default_rng(_SEED)
    views = [image]
    while len(views) < count:
        side = int(random.integers(150, 500))
        left, top = int(random.integers(0, 512 - side)), int(random.integers(0, 600 - side))
        crop = image.crop((left, top, left + side, top + side))
        views.append(crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if len(views) % 2 else crop)
    return np.stack([np.array(view.resize((300, 300), Image.Resampling.BILINEAR)) for view in views[:count]])


def synthetic_predictions(num_labels: int) -> tuple[AnyArray, AnyArray, AnyArray]:
    """Raw predictions that exercise the post-processing: ``loc``, ``conf`` and INT32 sizes (width, height).

    Image 0 has nothing above the threshold. Image 1 has every logit equal in many boxes, hence exact ties, also
    between classes. Image 2 has many candidates of one class. Image 3 has thousands of candidates in all classes, most
    in three of them, near their default boxes and hence with overlaps of every size.
    """
    random = np.random.default_rng(_SEED)
    loc = random.normal(0, 1, (4, 4, NUM_DEFAULT_BOXES)).astype(np.float32)
    conf = random.normal(0, 0.1, (4, num_labels, NUM_DEFAULT_BOXES)).astype(np.float32)
    conf[:, 0] += 8
    conf[1, 1 : min(4, num_labels), ::7] = 9
    conf[2, 1, :50] = np.linspace(9, 12, 50, dtype=np.float32)
    loc[2, :, :50] = 0
    conf[3] = random.normal(0, 2.5, conf[3].shape)
    conf[3, 1:4] += 3
    loc[3] *= 0.3
    sizes_px = np.array([[640, 480], [1, 1], [333, 4000], [1242, 375]], np.int32)
    return loc, conf, sizes_px
