"""Calibration on training images only: what is refused, the file of ranges, and the command."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from PIL import Image

from ssd_triton.common.errors import WeightsError
from ssd_triton.common.files import sha256_of
from ssd_triton.config import CalibrationMethod, Config
from ssd_triton.detector.protocol import preprocess
from ssd_triton.detector.quantization.calibration import calibrate, load_images
from ssd_triton.detector.quantization.ranges import CalibrationError, CalibrationRanges, load_ranges, save_ranges
from ssd_triton.detector.weights.file import WeightsFile
from tests.conftest import assert_one_line_error, long
from tests.detector.quantized import TENSORS

# --- Calibration ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", get_args(CalibrationMethod))
@pytest.mark.slow
def test_every_method_stays_within_what_was_seen(
    tiny: Path, images: Path, weights: WeightsFile, method: CalibrationMethod
) -> None:
    chosen = load_images(images, 2)
    seen = calibrate(tiny, TENSORS, chosen, "minmax", weights=weights, weight_bits=8).ranges
    found = calibrate(tiny, TENSORS, chosen, method, weights=weights, weight_bits=8)
    assert list(found.ranges) == TENSORS
    for tensor, (low, high) in found.ranges.items():
        assert seen[tensor][0] - 1e-4 <= low <= 0 < high <= seen[tensor][1] + 1e-4
    assert (found.method, found.num_images, found.images_sha256) == (method, 2, chosen.sha256)
    assert found.weights_sha256 == weights.sha256


def test_images_are_spread_over_the_folder_and_told_apart(images: Path) -> None:
    two = load_images(images, 2)
    np.testing.assert_array_equal(two.pixels[1], preprocess((images / "000000000104.png").read_bytes())[0])
    assert two.sha256 == load_images(images, 2).sha256 != load_images(images, 3).sha256


@pytest.mark.parametrize(
    ("count", "prepare", "words"),
    [
        (1, shutil.rmtree, ["is not a folder", "--images"]),
        (1, lambda folder: None, ["got 0 images", "expected 1 or more", "--images"]),
        (1, lambda folder: (folder / "a.txt").write_text("text"), ["got 0 images"]),
        (1, lambda folder: (folder / "a.jpg").write_bytes(b""), ["a.jpg: got 0 bytes", "remove it"]),
        (1, lambda folder: (folder / "a.jpg").write_text("text"), ["a.jpg: got 4 bytes that begin with b'text'"]),
        (1, lambda folder: (folder / "a.jpg").mkdir(), ["got 0 images"]),
    ],
)
def test_refuses_bad_folders(tmp_path: Path, count: int, prepare: Callable[[Path], object], words: list[str]) -> None:
    folder = tmp_path / "calibration"
    folder.mkdir()
    prepare(folder)
    with pytest.raises(CalibrationError) as error:
        load_images(folder, count)
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value)


def test_refuses_a_truncated_image(tmp_path: Path, photograph: bytes) -> None:
    (tmp_path / "a.jpg").write_bytes(photograph[: len(photograph) // 2])
    with pytest.raises(CalibrationError, match=r"a\.jpg: got an image that is damaged"):
        load_images(tmp_path, 1)


def test_refuses_evaluation_images_by_id_and_by_content(tmp_path: Path, images: Path) -> None:
    renamed, shrunk = tmp_path / "renamed", tmp_path / "shrunk"
    renamed.mkdir()
    shrunk.mkdir()
    shutil.copy(images / "000000000101.png", renamed / "holiday.png")
    Image.open(images / "000000000102.png").resize((64, 64)).save(shrunk / "COCO_val2014_000000000102.jpg")
    annotations = tmp_path / "instances.json"
    annotations.write_text(json.dumps({"images": [{"id": 103, "file_name": "000000000103.jpg"}]}))
    expected = r"3 of 8 images .*0101\.png, .*0102\.png, .*0103\.png; expected training"
    with pytest.raises(CalibrationError, match=expected):
        load_images(images, 2, [renamed, shrunk, annotations])


def test_accepts_other_evaluation_images(tmp_path: Path, images: Path, photograph: bytes) -> None:
    (tmp_path / "000000000999.jpg").write_bytes(photograph)
    assert len(load_images(images, 2, [tmp_path]).pixels) == 2


@pytest.mark.parametrize("text", ["", "[]", '{"images": [{"id": 1}]}', "{}"])
def test_refuses_what_is_no_annotation_file(tmp_path: Path, images: Path, text: str) -> None:
    path = tmp_path / "instances.json"
    path.write_text(text)
    with pytest.raises(CalibrationError, match="expected a COCO annotation file"):
        load_images(images, 2, [path])


# --- The ranges file --------------------------------------------------------------------------------------------------


def test_ranges_survive_the_file_which_is_sorted_and_readable(
    tmp_path: Path, ranges: CalibrationRanges, weights: WeightsFile
) -> None:
    path = tmp_path / "ranges.json"
    save_ranges(ranges, path)
    assert load_ranges(path, weights) == ranges
    keys = [line.split('"')[1] for line in path.read_text().splitlines() if line.startswith('    "')]
    assert sorted(TENSORS) == [key for key in keys if key in TENSORS]
    save_ranges(load_ranges(path, weights), tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == path.read_bytes()


def test_refuses_ranges_of_other_weights(tmp_path: Path, ranges: CalibrationRanges, weights: WeightsFile) -> None:
    path = tmp_path / "ranges.json"
    save_ranges(ranges, path)
    weights.path.write_bytes(b"other weights")
    weights = WeightsFile(weights.path)
    with pytest.raises(CalibrationError) as error:
        load_ranges(path, weights)
    for word in (ranges.weights_sha256, weights.sha256, "mine.safetensors", "ssd-triton quantize --calibrate"):
        assert word in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "change",
    [
        lambda record: "",
        lambda record: "[]",
        lambda record: json.dumps(record)[:-20],
        lambda record: json.dumps({**record, "surprise": 1}),
        lambda record: json.dumps({**record, "method": "guess"}),
        lambda record: json.dumps({**record, "ranges": {"map": [2, 1]}}),
        lambda record: json.dumps({**record, "ranges": {"map": [0, float("inf")]}}),
        lambda record: json.dumps({key: value for key, value in record.items() if key != "weights_sha256"}),
    ],
)
def test_refuses_a_damaged_file(
    tmp_path: Path, ranges: CalibrationRanges, weights: WeightsFile, change: Callable[[dict[str, Any]], str]
) -> None:
    path = tmp_path / "ranges.json"
    save_ranges(ranges, path)
    path.write_text(change(json.loads(path.read_text())))
    with pytest.raises(CalibrationError, match=r"does not hold calibration ranges .* .ssd-triton quantize") as error:
        load_ranges(path, weights)
    assert "\n" not in str(error.value)


def test_names_what_is_missing(tmp_path: Path, ranges: CalibrationRanges, weights: WeightsFile) -> None:
    with pytest.raises(CalibrationError, match=r"ranges not found: .*none\.json; .* .ssd-triton quantize"):
        load_ranges(tmp_path / "none.json", weights)
    path = tmp_path / "ranges.json"
    save_ranges(ranges, path)
    with pytest.raises(WeightsError, match="weights not found"):
        load_ranges(path, WeightsFile(tmp_path / "none.pt"))


# --- The command ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["nothing to do", "--calibrate"]),
        (["--calibrate"], ["got no training images", "--images"]),
        (["--sensitivity", "--images", "."], ["--evaluation-images", "--annotations"]),
        (["--output", "int8.onnx", "--ranges", "none.json"], ["none.json", "--calibrate"]),
    ],
)
def test_command_refuses_in_one_line(
    run_main: Callable[..., subprocess.CompletedProcess[str]], arguments: list[str], words: list[str]
) -> None:
    assert_one_line_error(run_main("tools/quantize_onnx.py", *arguments), *words)


@long
def test_command_calibrates_and_builds(
    run_script: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path, images: Path, config: Config
) -> None:
    ranges, output = tmp_path / "ranges.json", tmp_path / "int8.onnx"
    result = run_script(
        "tools/quantize_onnx.py",
        *("--calibrate", "--images", images, "--num-images", 2, "--method", "minmax", "--weight-bits", 8),
        *("--ranges", ranges, "--output", output),
    )
    assert result.returncode == 0, result.stderr
    assert "warning: without --evaluation-images" in result.stderr
    found = load_ranges(ranges, WeightsFile(config.weights_path))
    assert (found.method, found.weight_bits, found.num_images) == ("minmax", 8, 2)
    assert sha256_of(output) in result.stdout
