"""Rendered clips and datasets of the simulated world, and the tool that writes them."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from ssd_triton.config import Config
from ssd_triton.driving.braking.ego import load_ego_csv
from ssd_triton.evaluation.annotations import read_annotations
from ssd_triton.simulation import find_scenario, scenarios
from ssd_triton.simulation.clip import render_clip
from ssd_triton.simulation.dataset import write_dataset
from tests.conftest import assert_one_line_error, assert_wrong_usage
from tests.simulation.helpers import SMALL


def test_clip_with_annotations_and_tables(config: Config, labels: tuple[str, ...], tmp_path: Path) -> None:
    scenario = replace(find_scenario("ccrm-50"), duration_s=0.5)
    video, annotations = tmp_path / "clip.mp4", tmp_path / "clip.json"
    clip = render_clip(scenario, video, SMALL, config, labels, fps=10, annotations=annotations)
    capture = cv2.VideoCapture(str(video))
    assert (capture.get(cv2.CAP_PROP_FRAME_COUNT), capture.get(cv2.CAP_PROP_FRAME_WIDTH)) == (5, 640)
    found = read_annotations(annotations)
    assert len(found.images) == 5
    assert {labels[item.category_id] for item in found.annotations} == {"car"}
    assert {category.id: category.name for category in found.categories} == dict(enumerate(labels[1:], start=1))
    rows = list(csv.DictReader(clip.table.open()))
    assert [float(row["time_s"]) for row in rows] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])
    assert float(rows[0]["ttc_s"]) == pytest.approx(5.0, abs=1e-3)
    assert load_ego_csv(clip.ego_table, max_gap_s=1).at(0.2).speed_mps == pytest.approx(50 / 3.6, abs=1e-3)


@pytest.mark.slow
def test_dataset(labels: tuple[str, ...], tmp_path: Path) -> None:
    sets = [
        write_dataset(tmp_path / name, 3, seed, [(160, 120)], labels, processes=processes)
        for name, seed, processes in (("a", 1, 1), ("b", 1, 2), ("c", 2, 1))
    ]
    contents = [json.loads(item.annotations.read_text()) for item in sets]
    assert contents[0] == contents[1] != contents[2]
    assert [path.name for path in sorted(sets[0].folder.iterdir())] == [f"1-00000{index}.jpg" for index in range(3)]
    first, again = (cv2.imread(str(item.folder / "1-000002.jpg")) for item in sets[:2])
    np.testing.assert_array_equal(first, again)
    for box in contents[0]["annotations"]:
        left, top, width, height = box["bbox"]
        assert min(left, top) >= 0
        assert left + width <= 160.01
        assert top + height <= 120.01
        assert box["iscrowd"] == 0
        assert 0 < box["visibility"] <= 1


@pytest.mark.slow
def test_worlds_of_a_dataset_take_turns_in_their_size(run_script, tmp_path: Path) -> None:  # noqa: ANN001
    sizes = ["--size", "96", "72", "--size", "128", "64"]
    result = run_script("tools/render_dataset.py", tmp_path, "--count", "9", "--processes", "2", *sizes)
    assert result.returncode == 0, result.stderr
    expected = [(96, 72)] * 8 + [(128, 64)]
    images = read_annotations(tmp_path / "annotations.json").images
    assert len(images) == 9
    for image, (width, height) in zip(images, expected, strict=True):
        assert cv2.imread(str(tmp_path / "images" / image.file_name)).shape == (height, width, 3)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["ccrs40"], ["unknown scenario 'ccrs40'", "ccrs-40"]),
        (["town", "--size", "32", "32"], ["32x32", "--size"]),
    ],
)
def test_refusals_of_the_tool(run_main, tmp_path: Path, arguments: list[str], words: list[str]) -> None:  # noqa: ANN001
    result = run_main("tools/render_scenario.py", *arguments, "--output", tmp_path / "no.mp4")
    assert_one_line_error(result, *words)
    assert not list(tmp_path.glob("*.mp4"))


def test_a_rate_of_nothing_is_wrong_usage(run_main) -> None:  # noqa: ANN001  # type: ignore[no-untyped-def]
    assert_wrong_usage(run_main("tools/render_scenario.py", "town", "--fps", "0"), "argument --fps", "got '0'")


def test_list_of_scenarios(run_main) -> None:  # noqa: ANN001  # type: ignore[no-untyped-def]
    result = run_main("tools/render_scenario.py", "--list")
    assert result.returncode == 0, result.stderr
    assert all(row.name in result.stdout for row in scenarios())
