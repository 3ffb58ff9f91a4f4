"""The CUDA kernels of the one-process model, compiled for this CPU: their arithmetic against PIL and the reference."""

from __future__ import annotations

import ctypes
import math
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssd_triton.common.arrays import AnyArray
from ssd_triton.common.files import SHIPPED
from ssd_triton.detector.network.boxes import NUM_DEFAULT_BOXES, default_boxes_cxcywh
from ssd_triton.detector.postprocessing.parameters import PostprocessParameters
from ssd_triton.detector.postprocessing.reference import OUTPUTS, check_detections

SIDE_PX = 300
PARAMETERS = PostprocessParameters()


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("g++ is not installed")
    library = tmp_path_factory.mktemp("kernels") / "kernels.so"
    thresholds = {
        "TOPK": PARAMETERS.topk_candidates,
        "DETECTIONS": PARAMETERS.detections_per_img,
        "SCORE_THRESH": f"{PARAMETERS.score_thresh}f",
        "NMS_THRESH": f"{PARAMETERS.nms_thresh}f",
    }
    subprocess.run(
        [
            *(compiler, "-std=c++17", "-O2", "-ffp-contract=off", "-fpermissive", "-w", "-shared", "-fPIC"),
            *(f"-D{name}={value}" for name, value in thresholds.items()),
            f"-I{SHIPPED / 'model_repository/ssd/1'}",
            *("-o", str(library), str(Path(__file__).with_name("cuda_on_cpu.cpp"))),
        ],
        check=True,
    )
    return ctypes.CDLL(str(library))


def _pointer(array: AnyArray) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


def test_resize_equals_pil_bit_for_bit(kernels: ctypes.CDLL) -> None:
    sizes_px = [(640, 480), (300, 300), (8, 8), (301, 17), (1242, 375), (299, 1999), (4096, 9)]
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (height, width, 3), np.uint8) for width, height in sizes_px]
    heights = [len(image) for image in images]
    before = np.cumsum([0, *heights])
    table = np.array(
        [
            [image.ctypes.data, image.strides[0], image.shape[1], image.shape[0], rows]
            for image, rows in zip(images, before[:-1], strict=True)
        ],
        np.int64,
    )
    targets = np.arange(len(images))[::-1].astype(np.int64)
    resized = np.full((len(images), SIDE_PX, SIDE_PX, 3), 77, np.uint8)
    max_taps = 2 * math.ceil(max(1, *(side / SIDE_PX for size in sizes_px for side in size))) + 1
    kernels.resize(
        _pointer(table), _pointer(targets), len(images), int(before[-1]), max(heights), max_taps, _pointer(resized)
    )
    for image, target in zip(images, targets, strict=True):
        expected = Image.fromarray(image).resize((SIDE_PX, SIDE_PX), Image.Resampling.BILINEAR)
        np.testing.assert_array_equal(resized[target], np.asarray(expected))


def test_post_processing_equals_the_reference(kernels: ctypes.CDLL) -> None:
    defaults = np.ascontiguousarray(default_boxes_cxcywh())

    def run(inputs: dict[str, AnyArray]) -> dict[str, AnyArray]:
        loc, conf, sizes = (np.ascontiguousarray(inputs[name]) for name in ("loc", "conf", "original_size"))
        n, labels, detections = len(loc), conf.shape[1], PARAMETERS.detections_per_img
        outputs = (
            np.full((n, 1), -1, np.int32),
            np.full((n, detections, 4), np.nan, np.float32),
            np.full((n, detections), np.nan, np.float32),
            np.full((n, detections), -1, np.int32),
        )
        arguments = [_pointer(array) for array in (loc, conf, defaults, sizes)]
        kernels.postprocess(*arguments, n, labels, NUM_DEFAULT_BOXES, *(_pointer(array) for array in outputs))
        return dict(zip(OUTPUTS, outputs, strict=True))

    check_detections(run, 81, PARAMETERS)
