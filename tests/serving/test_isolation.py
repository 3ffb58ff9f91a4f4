"""Decoding in processes that can be stopped, as ssd_preprocess does with images that may take long."""

from __future__ import annotations

import importlib
import os
import signal
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ssd_triton.common.model_names import PREPROCESS
from ssd_triton.config import Config
from ssd_triton.measuring.attack.files import noise
from ssd_triton.measuring.request_cases import encode

MODULES = ("untrusted", "decoding", "isolation")


@pytest.fixture
def isolation(config: Config, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(config.model_repository / PREPROCESS / "1")
    yield importlib.import_module("isolation")
    for name in MODULES:
        del sys.modules[name]


@pytest.fixture
def limits(isolation: ModuleType) -> Any:
    return isolation.DecodingLimits(
        max_file_bytes=1 << 26,
        min_side_px=8,
        max_pixels=50_000_000,
        max_request_pixels=100_000_000,
        reduced_decode_ratio=0.0,
    )


def test_pixels_are_those_of_the_same_process(isolation: ModuleType, limits: Any) -> None:
    processes = isolation.DecoderProcesses(2, limits, max_cpu_s=5)
    data = encode(noise(), "JPEG")
    assert np.array_equal(processes.decode(data), isolation.decode(data, limits)[0])
    with pytest.raises(isolation.RefusedInputError, match="got 3 bytes that begin with"):
        processes.decode(b"abc")
    processes.close()


def test_an_image_that_takes_too_long_is_refused_alone(isolation: ModuleType, limits: Any) -> None:
    processes = isolation.DecoderProcesses(1, limits, max_cpu_s=0.05)
    pixels = np.random.default_rng(0).integers(0, 256, (4000, 3000, 3), np.uint8)
    with pytest.raises(isolation.RefusedInputError, match=r"takes more than 0\.05 s of a core to decode"):
        processes.decode(encode(Image.fromarray(pixels), "JPEG", quality=95))
    assert processes.decode(encode(noise(), "PNG")).shape == (300, 300, 3)
    processes.close()


def test_an_image_that_ends_its_decoder_is_refused_alone(isolation: ModuleType, limits: Any) -> None:
    processes = isolation.DecoderProcesses(1, limits, max_cpu_s=5)
    processes.decode(encode(noise(), "PNG"))
    process = processes.idle.get()
    os.kill(process.pid, signal.SIGSEGV)
    process.wait()
    processes.idle.put(process)
    with pytest.raises(isolation.RefusedInputError, match=r"ends its decoder \(code -11\)"):
        processes.decode(encode(noise(), "PNG"))
    assert processes.decode(encode(noise(), "PNG")).shape == (300, 300, 3)
    processes.close()


def test_a_decoded_image_keeps_no_pixels(isolation: ModuleType, limits: Any) -> None:
    """A request keeps its images until the last one is decoded."""
    decoding = sys.modules["decoding"]
    image, work_px = decoding.open_image(encode(noise(), "JPEG"), limits)
    assert work_px >= image.width * image.height
    assert decoding.decode_opened(image, limits).shape == (300, 300, 3)
    with pytest.raises(ValueError, match="closed image"):
        image.getpixel((0, 0))


def test_reasons_hold_no_control_characters(isolation: ModuleType) -> None:
    assert sys.modules["decoding"].printable(ValueError("a\x1b[31mb\n")) == "a\\x1b[31mb\\x0a"
