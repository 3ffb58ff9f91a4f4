"""The README's programs, its curl example and a newcomer's first commands, run as they are shown."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssd_triton.client import DetectorClient
from ssd_triton.common.files import ROOT
from ssd_triton.serving.server import EmbeddedServer
from tests.documented import PAGES, shown_commands, shown_programs

README = ROOT / "README.md"
PROGRAMS = [(page, program) for page in PAGES for program in shown_programs("python", page)]


@pytest.fixture
def folder(tmp_path: Path, photograph: bytes) -> Path:
    """A folder as a clone is, with a picture of the user's."""
    (tmp_path / "photo.jpg").write_bytes(photograph)
    labels = Path("model_repository/ssd_detector/labels.txt")
    (tmp_path / labels).parent.mkdir(parents=True)
    shutil.copy(ROOT / labels, tmp_path / labels)
    return tmp_path


def _to(server: EmbeddedServer, text: str) -> str:
    """A program or command that asks this server instead of one on the default ports."""
    assert re.search(r"127\.0\.0\.1:800[01]", text)
    return text.replace("127.0.0.1:8001", server.url("grpc")).replace("127.0.0.1:8000", server.url("http"))


def _run(folder: Path, *command: str) -> str:
    result = subprocess.run(
        command,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize(("page", "program"), PROGRAMS, ids=lambda value: value.stem if isinstance(value, Path) else "")
def test_documented_program_runs(folder: Path, light_server: EmbeddedServer, page: Path, program: str) -> None:
    assert _run(folder, sys.executable, "-c", _to(light_server, program))


def test_programs_of_the_readme_print_the_detections(
    folder: Path, light_server: EmbeddedServer, light_grpc_detector: DetectorClient, photograph: bytes
) -> None:
    expected = light_grpc_detector.detect(photograph)
    assert len(expected) > 0
    own, plain = shown_programs("python", README)
    lines = _run(folder, sys.executable, "-c", _to(light_server, own)).splitlines()
    assert [line.split()[:2] for line in lines] == [[f"{i}", f"{score:.2f}"] for _, score, i in expected]
    printed = _run(folder, sys.executable, "-c", _to(light_server, plain))
    # Boxes, then scores, then classes.
    numbers = np.array([float(number) for number in re.findall(r"-?\d[\d.e+-]*", printed)])
    arrays = (expected.boxes_xyxy, expected.scores, expected.class_ids)
    np.testing.assert_allclose(numbers, np.concatenate([array.ravel() for array in arrays]), rtol=1e-4)


def test_curl_example_of_the_readme(
    folder: Path, light_server: EmbeddedServer, light_grpc_detector: DetectorClient, photograph: bytes
) -> None:
    for program in ("curl", "perl"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    commands = [command.text for command in shown_commands() if command.page == README and not command.is_inline]
    start = next(i for i, command in enumerate(commands) if command.startswith("size="))
    answer = json.loads(_run(folder, "bash", "-c", _to(light_server, "\n".join(commands[start : start + 3]))))
    outputs = {output["name"]: np.array(output["data"]).reshape(output["shape"]) for output in answer["outputs"]}
    expected = light_grpc_detector.detect(photograph)
    assert outputs["num_detections"].tolist() == [[len(expected)]]
    assert outputs["detection_boxes"].shape == (1, 200, 4)
    np.testing.assert_allclose(outputs["detection_boxes"][0, : len(expected)], expected.boxes_xyxy, rtol=1e-5)
    np.testing.assert_allclose(outputs["detection_scores"][0, : len(expected)], expected.scores, rtol=1e-5)
    assert outputs["detection_classes"][0, : len(expected)].tolist() == expected.class_ids.tolist()


def test_a_newcomer_s_first_detection(folder: Path) -> None:
    """``make setup`` made the environment of this test; the second command runs here."""
    commands = [command.text for command in shown_commands() if command.page == README and not command.is_inline]
    program, *arguments = shlex.split(commands[commands.index("make setup") + 1])
    assert program == ".venv/bin/ssd-triton"
    run_it = "from ssd_triton.commands import main; import sys; sys.argv[0] = 'ssd-triton'; main()"
    _run(folder, sys.executable, "-c", run_it, *arguments)
    [found] = json.loads((folder / "reports/detect/detections.json").read_text(encoding="utf-8"))
    assert [detection["class_name"] for detection in found["detections"]] == ["person"]
    with Image.open(folder / "reports/detect/photo.annotated.jpg") as picture:
        assert picture.size == (512, 600)
