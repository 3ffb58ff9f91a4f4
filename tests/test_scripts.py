"""The command lines, run as a user runs them: help, exit codes, one-line errors, results."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from ssd_triton.common.errors import ExportError
from ssd_triton.common.files import ROOT
from ssd_triton.detector.export.compare import check_interface, check_values
from tests.conftest import assert_one_line_error

if TYPE_CHECKING:
    from ssd_triton.serving.server import EmbeddedServer

RunScript = Callable[..., "subprocess.CompletedProcess[str]"]
SCRIPTS = sorted(
    str(path.relative_to(ROOT)) for folder in ("tools", "clients") for path in (ROOT / folder).glob("*.py")
)


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_shows_an_example_and_defaults(run_main: RunScript, script: str) -> None:
    result = run_main(script, "--help")
    assert result.returncode == 0, result.stderr
    assert f"python {script}" in result.stdout
    assert "(default: " in result.stdout


@pytest.mark.parametrize("script", SCRIPTS)
def test_wrong_usage_exits_2(run_main: RunScript, script: str) -> None:
    result = run_main(script, "--no-such-option")
    assert result.returncode == 2
    assert "Traceback" not in result.stderr


def test_flags_override_the_configuration(run_main: RunScript, tmp_path: Path) -> None:
    text = (ROOT / "config.yml").read_text(encoding="utf-8").replace("score_thresh: 0.5", "score_thresh: 0.125")
    (tmp_path / "mine.yml").write_text(text, encoding="utf-8")
    result = run_main("clients/detect.py", "--config", "mine.yml", "--help")
    assert "0.125" in result.stdout


def test_broken_configuration_is_one_line(run_main: RunScript, tmp_path: Path) -> None:
    (tmp_path / "mine.yml").write_text("backbon: resnet50\n", encoding="utf-8")
    result = run_main("clients/detect.py", "--config", "mine.yml", "x.jpg")
    assert_one_line_error(result, "mine.yml", "did you mean 'backbone'")


# --- detect -----------------------------------------------------------------------------------------------------------


def test_detect_without_a_server(run_script: RunScript, tmp_path: Path, photograph: bytes) -> None:
    (tmp_path / "person.jpg").write_bytes(photograph)
    result = run_script("clients/detect.py", "person.jpg", "--url", "127.0.0.1:9", "--timeout-s", 1)
    assert_one_line_error(result, "no Triton server answers at 127.0.0.1:9", "tools/serve.py")


@pytest.mark.parametrize(("argument", "words"), [("nope.jpg", "not found: nope.jpg"), ("empty", "no images in empty")])
def test_detect_without_images(run_main: RunScript, tmp_path: Path, argument: str, words: str) -> None:
    (tmp_path / "empty").mkdir()
    assert_one_line_error(run_main("clients/detect.py", argument), words)


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_detect_images(
    run_script: RunScript, tmp_path: Path, server: EmbeddedServer, photograph: bytes, protocol: str
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/person.jpg").write_bytes(photograph)
    (tmp_path / "in/broken.jpg").write_bytes(photograph[:1000])
    (tmp_path / "in/notes.txt").write_text("not an image, and not looked at")
    url = server.url("grpc" if protocol == "grpc" else "http")
    result = run_script("clients/detect.py", "in", "--url", url, "--protocol", protocol, "--output", "out")
    assert result.returncode == 1
    assert result.stdout.split() == ["out/person.annotated.jpg", "out/detections.json"]
    assert "refused: in/broken.jpg: batch element 0" in result.stderr
    assert "Traceback" not in result.stderr
    broken, person = json.loads((tmp_path / "out/detections.json").read_text())
    assert "damaged" in broken["error"]
    assert [found["class_name"] for found in person["detections"]] == ["person"]
    with Image.open(tmp_path / "out/person.annotated.jpg") as picture:
        assert picture.size == (512, 600)
        drawn = np.asarray(picture.convert("RGB")).astype(int)
    with Image.open(tmp_path / "in/person.jpg") as original:
        plain = np.asarray(original.convert("RGB")).astype(int)
    left = round(person["detections"][0]["box_xyxy"][0])
    assert np.abs(drawn - plain)[300, max(left - 4, 0) : left + 5].max() > 60


def test_detect_two_files_of_one_name(
    run_script: RunScript, tmp_path: Path, server: EmbeddedServer, photograph: bytes
) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "1.jpg").write_bytes(photograph)
    result = run_script("clients/detect.py", "a", "b", "--url", server.url("grpc"), "--output", "out")
    assert result.stdout.split() == ["out/1.annotated.jpg", "out/1.2.annotated.jpg", "out/detections.json"]


# --- export -----------------------------------------------------------------------------------------------------------


def test_export_of_missing_weights(run_main: RunScript, tmp_path: Path) -> None:
    result = run_main("tools/export_onnx.py", "out.onnx", "--weights-path", "none.pt")
    assert_one_line_error(result, "weights not found", "tools/fetch_weights.py")
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
