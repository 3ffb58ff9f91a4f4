"""Decodes the images of a training set, in several processes if there are many."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain, repeat
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from ssd_triton.common.arrays import UInt8Array
from ssd_triton.common.cores import usable_cores
from ssd_triton.common.errors import ImageError
from ssd_triton.common.processes import process_pool
from ssd_triton.common.progress import progress
from ssd_triton.evaluation import annotations as coco
from ssd_triton.evaluation.orientation import is_annotated_upright
from ssd_triton.media.decoding import open_rgb
from ssd_triton.media.images import read_image

_FEWEST_FOR_PROCESSES = 2_000
"""The number of images from which the start of processes pays off."""
_CHUNK = 32
"""Images that a process decodes at once: enough that their hand-over takes no time."""


class ImageFile(NamedTuple):
    """Properties of an image file other than its pixels."""

    size_px: tuple[int, int]
    sha256: str
    annotated_upright: bool


Properties = ImageFile | str
"""Properties of an image file, or why it cannot be read."""


def decode_images(
    folder: Path, images: Sequence[coco.Image], side_px: int, name: str
) -> tuple[UInt8Array, list[Properties]]:
    """Decode all images into memory that is shared with the processes.

    Pillow holds Python's lock for most of the time, so that threads would wait for each other.

    Args:
        folder: Folder of the images.
        images: The images, as an annotation file lists them.
        side_px: S, the width and height that every image is resized to.
        name: Name of the set, for the progress bar.

    Returns:
        UINT8 [N, 3, S, S] RGB, where the rows of images that cannot be read are zero, and the properties of each image.
    """
    shape = (len(images), 3, side_px, side_px)
    descriptor = os.memfd_create("images", os.MFD_CLOEXEC)
    try:
        os.ftruncate(descriptor, max(1, math.prod(shape)))
        memory = Path(f"/proc/{os.getpid()}/fd/{descriptor}")
        starts = range(0, len(images), _CHUNK)
        chunks = [_Chunk(memory, start, tuple(images[start : start + _CHUNK])) for start in starts]
        decoded = _each(partial(_decode_chunk, folder, side_px), chunks)
        properties = progress(chain.from_iterable(decoded), total=len(images), description=name, unit="images")
        return np.memmap(memory, np.uint8, "r+", shape=shape), list(properties)
    finally:
        os.close(descriptor)


class _Chunk(NamedTuple):
    """Images that are decoded together, into rows of shared memory.

    Attributes:
        memory: A file.
        start: The row of the first image.
        images: The images.
    """

    memory: Path
    start: int
    images: tuple[coco.Image, ...]


def _each(decode: Callable[[_Chunk], list[Properties]], chunks: Sequence[_Chunk]) -> Iterator[list[Properties]]:
    """Decode all chunks, in order, in processes if there are many."""
    if len(chunks) * _CHUNK < _FEWEST_FOR_PROCESSES:
        yield from map(decode, chunks)
        return
    with process_pool(min(usable_cores(), len(chunks))) as pool:
        yield from pool.map(decode, chunks)


def _decode_chunk(folder: Path, side_px: int, chunk: _Chunk) -> list[Properties]:
    shape = (len(chunk.images), 3, side_px, side_px)
    rows = np.memmap(chunk.memory, np.uint8, "r+", chunk.start * math.prod(shape[1:]), shape)
    return list(map(_decode, repeat(folder), chunk.images, rows))


def _decode(folder: Path, image: coco.Image, row: UInt8Array) -> Properties:
    path = folder / image.file_name
    try:
        content = read_image(path)
        opened = open_rgb(content, image.file_name)
    except ImageError as error:
        return str(error) if path.exists() else "missing"
    side_px = row.shape[-1]
    resized = opened.resize((side_px, side_px), Image.Resampling.BILINEAR)
    for plane, name in zip(row, "RGB", strict=True):
        plane[:] = np.frombuffer(resized.tobytes("raw", name), np.uint8).reshape(plane.shape)
    upright = is_annotated_upright(image, opened.size, content)
    return ImageFile(opened.size, hashlib.sha256(content).hexdigest(), upright)
