"""Corner cases of Pillow, OpenCV and libjpeg: server and evaluation give the same pixels, or both refuse."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from itertools import product

import cv2
import numpy as np
from PIL import Image

from ssd_triton.client import DetectorClient, RequestRefusedError
from ssd_triton.client.inputs import encoded
from ssd_triton.common.errors import ImageError
from ssd_triton.detector.protocol import preprocess
from ssd_triton.measuring.fuzz.corpus import make_corpus
from ssd_triton.measuring.request_cases import encode

DEPTHS = (np.uint8, np.uint16, np.float32)


def pillow_s(rgb: Image.Image) -> Iterator[tuple[str, bytes]]:
    for size_px in ((8, 8), (9, 301), (301, 9), (300, 300), (1, 300)):
        yield f"PNG of {size_px}", encode(rgb.resize(size_px), "PNG")
    for bits, kind in product((1, 2, 4), ("PNG", "BMP")):
        yield (
            f"{kind} of {2**bits} colours",
            encode(rgb.quantize(2**bits), kind, **({"bits": bits} if kind == "PNG" else {})),
        )
    for orientation in range(2, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        yield f"JPEG of orientation {orientation}", encode(rgb, "JPEG", exif=exif)
    yield "PNG of a transparent colour", encode(rgb, "PNG", transparency=rgb.getpixel((0, 0)))
    yield "PNG with a gamma", encode(rgb, "PNG", gamma=0.45)
    yield "TIFF of the other byte order", encode(rgb, "TIFF").replace(b"II*\0", b"MM*\0", 1)
    for mode, kind in product(("1", "PA", "RGBX", "HSV"), ("PNG", "TIFF")):
        with contextlib.suppress(OSError):  # Pillow does not write each of them
            yield f"{kind} {mode}", encode(rgb.convert(mode), kind)


def libjpeg_s(rgb: Image.Image) -> Iterator[tuple[str, bytes]]:
    bgr = np.asarray(rgb)[:, :, ::-1]
    for factor in ("411", "420", "422", "440", "444"):
        options = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, getattr(cv2, f"IMWRITE_JPEG_SAMPLING_FACTOR_{factor}")]
        yield f"JPEG of sampling {factor}", cv2.imencode(".jpg", bgr, options)[1].tobytes()
    for quality in (0, 1, 100):
        yield f"JPEG of quality {quality}", encode(rgb, "JPEG", quality=quality)
    yield (
        "JPEG of restarts and scans",
        cv2.imencode(
            ".jpg",
            bgr,
            [cv2.IMWRITE_JPEG_RST_INTERVAL, 3, cv2.IMWRITE_JPEG_PROGRESSIVE, 1, cv2.IMWRITE_JPEG_OPTIMIZE, 1],
        )[1].tobytes(),
    )
    plain = encode(rgb, "JPEG")
    yield "JPEG without JFIF", plain[:2] + plain[20:]
    yield "JPEG with more behind it", plain + b"a second file" * 9
    yield "JPEG without an end", plain[:-2]
    yield "JPEG of half its data", plain[: len(plain) // 2]
    yield "JPEG of fill bytes", plain[:2] + b"\xff" * 99 + plain[2:]
    yield "JPEG of another height", plain.replace((28).to_bytes(2, "big") + (40).to_bytes(2, "big"), b"\0\x30\0\x28", 1)
    yield "JPEG whose inks are inverted", encode(rgb.convert("CMYK"), "JPEG").replace(b"Adobe", b"adobe", 1)


def opencv_s(rgb: Image.Image) -> Iterator[tuple[str, bytes]]:
    picture = np.asarray(rgb)
    for suffix, depth, channels in product(
        (".png", ".tiff", ".bmp", ".webp", ".ppm", ".pam", ".jp2", ".hdr"), DEPTHS, (1, 3, 4)
    ):
        pixels = np.dstack([picture, picture[:, :, :1]])[:, :, :channels].astype(depth)
        scaled = pixels * depth({np.uint8: 1, np.uint16: 257, np.float32: 1 / 255}[depth])
        with contextlib.suppress(cv2.error):  # OpenCV does not write each of them
            done, data = cv2.imencode(suffix, scaled)
            if done:
                yield f"{suffix} {np.dtype(depth).name} x {channels}", data.tobytes()


def corner_cases() -> dict[str, bytes]:
    corpus = make_corpus()
    rgb = Image.open(io.BytesIO(corpus["PNG"])).convert("RGB")
    return corpus | dict([*pillow_s(rgb), *libjpeg_s(rgb), *opencv_s(rgb)])


def reference(file: bytes) -> np.ndarray | None:
    try:
        return preprocess(file)[0]
    except ImageError:
        return None


def served(client: DetectorClient, file: bytes) -> np.ndarray | None:
    try:
        return client.submit_preprocess(encoded(file)).result()
    except RequestRefusedError as error:
        assert len(str(error)) > 20
        return None


def test_served_pixels_are_those_of_the_evaluation(light_grpc_detector: DetectorClient) -> None:
    answered = refused = 0
    for name, file in corner_cases().items():
        got, expected = served(light_grpc_detector, file), reference(file)
        assert (got is None) == (expected is None), name
        if got is None:
            refused += 1
        else:
            assert np.array_equal(got, expected), name
            answered += 1
    assert answered > 80
    assert refused > 10
