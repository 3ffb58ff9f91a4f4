"""The export: what is refused, and what differs from the reference."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ssd_triton.common.errors import ExportError
from ssd_triton.common.files import ROOT
from ssd_triton.detector.export.compare import check_interface, check_values
from tests.conftest import assert_one_line_error

RunScript = Callable[..., "subprocess.CompletedProcess[str]"]


def test_export_of_missing_weights(run_main: RunScript, tmp_path: Path) -> None:
    result = run_main("tools/export_onnx.py", "out.onnx", "--weights-path", "none.pt")
    assert_one_line_error(result, "weights not found", "ssd-triton fetch-weights")
    assert list(tmp_path.iterdir()) == []


def test_export_with_too_few_images(run_main: RunScript, tmp_path: Path, photograph: bytes) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images/one.jpg").write_bytes(photograph)
    result = run_main("tools/export_onnx.py", "out.onnx", "--images", "images")
    assert_one_line_error(result, "got 1 images in images, expected 4 or more")


def test_differences_in_interface_are_all_reported(config: object) -> None:
    path = ROOT / "model_repository/ssd_postprocess/1/model.onnx"
    with pytest.raises(ExportError) as error:
        check_interface(
            path,
            inputs={
                "loc": (np.dtype(np.float16), (None, 4, 8732)),
                "scores": (np.dtype(np.float32), (None, 81, 8732)),
                "original_size": (np.dtype(np.int32), (1, 2)),
            },
            outputs={},
        )
    message = str(error.value)
    for words in (
        "input 'loc': got float32 [dynamic, 4, 8732], expected float16 [dynamic, 4, 8732]",
        "input 'scores': got nothing, expected float32",
        "input 'conf': got float32 [dynamic, 81, 8732], expected nothing",
        "input 'original_size': got int32 [dynamic, 2], expected int32 [1, 2]",
        "output 'num_detections': got int32 [dynamic, 1], expected nothing",
    ):
        assert words in message


def test_differences_in_values_are_all_reported() -> None:
    expected = {
        "same": np.ones(4, np.float32),
        "off": np.ones(4, np.float32),
        "nan": np.ones(4, np.float32),
        "shape": np.ones(4, np.float32),
        "absent": np.ones(4, np.float32),
    }
    got = {
        "same": np.ones(4, np.float32),
        "off": np.array([1, 1, 1, 1.01], np.float32),
        "nan": np.array([1, 1, 1, np.nan], np.float32),
        "shape": np.ones((2, 2), np.float32),
    }
    with pytest.raises(ExportError) as error:
        check_values(expected, got, 1e-4, "the model")
    message = str(error.value)
    assert "'same'" not in message
    for words in ("'off': relative error 5.00e-03", "'nan'", "'shape': got float32 [2, 2]", "'absent': got nothing"):
        assert words in message
