"""Recognition of evaluation images by name, content or appearance."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from ssd_triton.common.arrays import UInt8Array
from ssd_triton.common.errors import ImageError
from ssd_triton.common.progress import progress
from ssd_triton.media.decoding import open_rgb
from ssd_triton.media.images import list_images, read_image
from ssd_triton.training.errors import TrainingError
from ssd_triton.training.validation import stem

MAX_DIFFERENT_BITS = 6
"""Images look alike if their hashes differ in at most this many of 64 bits. Of 500 photographs of COCO, 499 are found
again after they were shrunk to 352 px and compressed as WebP; of 4,097 others, 7 are mistaken for one of them."""
_SIDE = 8


@dataclass(frozen=True)
class Excluded:
    """Evaluation images that must not be trained on.

    Attributes:
        stems: Their names, as :func:`ssd_triton.training.validation.stem` returns them.
        contents: SHA-256 of their files.
        hashes: UINT8 [N, 64], 0 or 1: results of :func:`difference_hash`.
    """

    stems: frozenset[str]
    contents: frozenset[str]
    hashes: UInt8Array

    def reason(self, path: Path, content: bytes, image: Image.Image) -> str | None:
        """Return why an image counts as an evaluation image, or None.

        Args:
            path: Its file.
            content: Content of the file.
            image: The decoded image.
        """
        if stem(path.name) in self.stems:
            return "has the name of an evaluation image"
        if hashlib.sha256(content).hexdigest() in self.contents:
            return "is an evaluation image"
        if len(self.hashes):
            differing = np.count_nonzero(self.hashes != difference_hash(image), axis=1)
            if differing.min() <= MAX_DIFFERENT_BITS:
                return "looks like an evaluation image"
        return None


def difference_hash(image: Image.Image) -> UInt8Array:
    """Return which of 8 × 8 places are brighter than their left neighbour: UINT8 [64] of 0 and 1.

    Source: Krawetz, "Kind of Like That" (2013), the hash called dHash.
    """
    grey = np.asarray(image.convert("L").resize((_SIDE + 1, _SIDE), Image.Resampling.BILINEAR))
    bits: UInt8Array = (grey[:, 1:] > grey[:, :-1]).astype(np.uint8).ravel()
    return bits


def read_excluded(folders: Sequence[Path]) -> Excluded:
    """Read the evaluation images of some folders.

    Raises:
        TrainingError: A folder holds no images, or one of them is damaged.
    """
    stems, contents, hashes = set(), set(), []
    for folder in folders:
        found = list_images(folder)
        if not found.paths:
            raise TrainingError(f"{found.nothing_found()}; give a folder of evaluation images with --not-in")
        for path in progress(found.paths, total=len(found.paths), description=f"read {folder.name}", unit="images"):
            try:
                content = read_image(path)
                hashes.append(difference_hash(open_rgb(content, path.name)))
            except ImageError as error:
                raise TrainingError(f"{error}; or remove it from the evaluation images") from error
            stems.add(stem(path.name))
            contents.add(hashlib.sha256(content).hexdigest())
    packed: npt.NDArray[np.uint8] = np.array(hashes, np.uint8).reshape(-1, _SIDE * _SIDE)
    return Excluded(frozenset(stems), frozenset(contents), packed)
