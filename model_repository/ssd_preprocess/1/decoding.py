"""Encoded images -> pixels for the network, by the evaluation protocol. Needs NumPy and Pillow only."""

import math
from contextlib import closing, contextmanager
from dataclasses import dataclass

import numpy as np
import PIL
from PIL import Image
from untrusted import RefusedInputError, check_request_work, open_untrusted, printable, to_rgb

SIZE_PX = 300
"""Side of the network's input."""
MAX_PILLOW = 12
"""Newest major version whose resize is the evaluation protocol's: that of 13 moves boxes by up to 2 px."""
# Every image is checked against max_pixels; PIL's own limit would only warn.
Image.MAX_IMAGE_PIXELS = None


def check_pillow(version=PIL.__version__):
    """Refuse a Pillow whose pixels are not the evaluation protocol's.

    Raises:
        RuntimeError: It is newer.
    """
    if int(version.partition(".")[0]) > MAX_PILLOW:
        raise RuntimeError(
            f"got Pillow {version}, expected {MAX_PILLOW} or older: newer ones resize differently; run "
            f"\"pip install 'pillow<{MAX_PILLOW + 1}'\" for the Python of this server"
        )


@dataclass(frozen=True)
class DecodingLimits:
    """Limits of the model's configuration; see there.

    Attributes:
        max_file_bytes: Bytes of one file.
        min_side_px: Pixels that each side must have.
        max_pixels: Pixels of one image.
        max_request_pixels: Pixels of all images of one request.
        reduced_decode_ratio: How far above the network's size a JPEG may be decoded at a reduced size; 0 never does.
    """

    max_file_bytes: int
    min_side_px: int
    max_pixels: int
    max_request_pixels: int
    reduced_decode_ratio: float

    @classmethod
    def from_parameters(cls, parameters):
        """Read the limits from the parameters of a model's configuration."""
        values = {name: parameters[name]["string_value"] for name in cls.__annotations__}
        return cls(**{name: float(value) if "ratio" in name else int(value) for name, value in values.items()})


def open_image(data, limits):
    """File bytes -> PIL image whose pixels are still to be decoded, and its work in pixels.

    Raises:
        RefusedInputError: It is not an image within the limits of one, or is damaged.
    """
    with _damage_refused():
        return open_untrusted(
            data, max_file_bytes=limits.max_file_bytes, min_side_px=limits.min_side_px, max_pixels=limits.max_pixels
        )


def decode_opened(image, limits):
    """PIL image of :func:`open_image` -> UINT8 [300, 300, 3] RGB; the image is closed.

    Raises:
        RefusedInputError: It is damaged.
    """
    # Closed at once: a request keeps its images until all of them are decoded, and must not keep their pixels.
    with _damage_refused(), closing(image):
        if limits.reduced_decode_ratio > 0:
            # libjpeg decodes at 1/2, 1/4 or 1/8 for part of the work; PIL never goes below the size asked for.
            side_px = math.ceil(SIZE_PX * limits.reduced_decode_ratio)
            image.draft(None, (side_px, side_px))
        image.load()
        return resize(to_rgb(image))


def decode(data, limits):
    """File bytes of a request with this image alone -> UINT8 [300, 300, 3] RGB and (width, height).

    Raises:
        RefusedInputError: It is not an image within the limits, or is damaged.
    """
    image, work_px = open_image(data, limits)
    check_request_work(work_px, limits.max_request_pixels)
    size = image.size
    return decode_opened(image, limits), size


def resize(image):
    """PIL image -> UINT8 [300, 300, 3], by PIL's antialiased bilinear filter."""
    return np.asarray(image.resize((SIZE_PX, SIZE_PX), Image.Resampling.BILINEAR))


@contextmanager
def _damage_refused():
    try:
        yield
    except RefusedInputError:
        raise
    # On damaged files PIL's decoders raise almost anything: OSError, SyntaxError, struct.error, zlib.error, ...
    except Exception as error:
        raise RefusedInputError(f"the image is damaged or of an unsupported kind: {printable(error)}") from error
