"""Bad input to the evaluation, refused before any server is asked."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import assert_one_line_error
from tests.evaluation.helpers import with_content, write_crops, write_damaged

RunScript = Callable[..., "subprocess.CompletedProcess[str]"]
SCRIPT = "clients/coco_eval.py"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, photograph: bytes, labels: tuple[str, ...]) -> Path:
    return write_crops(tmp_path_factory.mktemp("coco"), photograph, labels)


# --- Bad input --------------------------------------------------------------------------------------------------------


@pytest.fixture
def damaged(folder: Path, tmp_path: Path) -> Path:
    return write_damaged(folder, tmp_path)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda folder: [], ["got no dataset", "coco_data_path"]),
        (lambda folder: ["--images", "none", "--annotations", "instances.json"], ["not found: none"]),
        (lambda folder: ["--images", ".", "--annotations", "none.json"], ["cannot read the annotations none.json"]),
        (lambda folder: ["--images", ".", "--annotations", "0.jpg"], ["0.jpg", "expected a COCO instances_*.json"]),
        (with_content("no.json", categories=[{"id": 10, "name": "persn"}]), ["'persn' (nearest: 'person')"]),
        (
            with_content("gone.json", images=[{"id": n, "file_name": f"{n}.jpg"} for n in (0, 97, 98, 99, 100)]),
            ["lacks 4 of 5 images", "97.jpg", "--skip-missing"],
        ),
        (lambda folder: ["--images", ".", "--annotations", "instances.json", "--limit", "9"], ["expected 9 or more"]),
        (lambda folder: ["--images", ".", "--annotations", "instances.json"], ["no Triton server answers"]),
    ],
)
def test_bad_input_is_one_line(
    run_main: RunScript, damaged: Path, make: Callable[[Path], list[object]], words: list[str]
) -> None:
    result = run_main(SCRIPT, *make(damaged), "--url", "127.0.0.1:9")
    assert_one_line_error(result, *words)
    assert result.stdout == ""
    assert not (damaged / "out").exists()
