"""Values that verbs cannot use: one line that says so, and nothing is started for them."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from ssd_triton.commands.parser import verb_parser
from ssd_triton.commands.runner import run_verb
from ssd_triton.commands.verbs import drain, engine, quantize, render_scenario
from ssd_triton.common.detections import Detections
from ssd_triton.common.errors import ConfigError
from ssd_triton.config import Config
from ssd_triton.detector.variants import VARIANTS, Precision
from ssd_triton.measuring.replicas.drain import WAYS
from ssd_triton.simulation.clip import DEFAULT_FPS, DEFAULT_SIZE_PX
from ssd_triton.simulation.rendering.weather import WEATHERS
from ssd_triton.simulation.simulate import simulate


@pytest.fixture
def folder(tmp_path: Path, photograph: bytes, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with files to name."""
    (tmp_path / "a.jpg").write_bytes(photograph)
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    (tmp_path / "binary").write_bytes(bytes(range(256)))
    (tmp_path / "few.txt").write_text("background\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


URL = "127.0.0.1:9"


@pytest.mark.parametrize(
    ("line", "code", "words"),
    [
        ("detect a.jpg --in-flight 0", 2, "argument --in-flight: "),
        ("detect a.jpg --timeout-s nan", 2, "argument --timeout-s: "),
        ("detect a.jpg --timeout-s 0", 2, "argument --timeout-s: "),
        ("detect a.jpg --score-thresh 50", 2, "argument --score-thresh: "),
        ("coco-eval --retry-s 0", 2, "argument --retry-s: "),
        (f"detect a.jpg --serve --url {URL}", 2, "argument --url: not allowed with argument --serve"),
        (f"coco-eval --url {URL} --serve onnx_fp32", 2, "argument --serve: not allowed with argument --url"),
        ("detect a.jpg --output file", 2, "argument --output: got the file file, expected a folder"),
        ("detect a.jpg --output file/below", 2, "argument --output: got file/below below the file file"),
        ("coco-eval --set coco.output=file", 2, "argument --output: got the file file, expected a folder"),
        ("soak --output file", 2, "argument --output: got the file file, expected a folder"),
        ("demo --output folder", 2, "argument --output: got the folder folder, expected a file"),
        (
            "serve --grpc-port 7000 --http-port 7000",
            2,
            "got 7000 for grpc_port and http_port, expected different ports",
        ),
        ("serve --grpc-port 65536", 2, "argument --grpc-port: "),
        ("serve --host=", 2, "argument --host: "),
        ("serve --no-build --host nowhere.invalid", 1, "cannot listen on nowhere.invalid:8001"),
        ("serve --no-build --host nowhere.invalid --grpc-port 0", 1, "give --host an address of this machine"),
        (f"detect a.jpg --url {URL} --labels-path few.txt", 1, "expected 'background' and then one class name"),
        (f"detect a.jpg --url {URL} --labels-path binary", 1, "is not UTF-8"),
        (f"detect a.jpg --url {URL} --labels-path folder", 1, "cannot read the labels file folder"),
        ("detect a.jpg --url localhost", 1, "got no port in the address 'localhost'"),
        ("detect a.jpg --url ::1", 1, "expected one such as localhost:8001 or [::1]:8001"),
        ("detect a.jpg --url http://localhost:8000", 1, "give that, or --protocol http"),
        ("detect a.jpg --url nowhere.invalid:8001", 1, "nowhere.invalid:8001: unknown host"),
        (f"detect a.jpg --url {URL}", 1, f"no Triton server answers at {URL}"),
        (f"status --url {URL}", 1, f"no Triton server answers at {URL}"),
        ("status --log none.log", 1, "none.log: got no log (No such file or directory)"),
        ("status --log folder", 1, "folder: got no log (Is a directory)"),
        ("demo --video 99999999999", 1, "camera 99999999999: there is no such camera"),
        ("demo --video " + "9" * 40, 1, "there is no such camera"),
    ],
)
def test_values(line: str, code: int, words: str, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    verb, *arguments = line.split(" ")
    try:
        returned = run_verb(verb, arguments)
    except SystemExit as error:
        returned = int(str(error.code))
    printed = capfd.readouterr()
    assert (returned, printed.out) == (code, "")
    assert words in printed.err
    assert printed.err.splitlines()[-1].startswith(f"ssd-triton {verb}: error: ")
    assert "Traceback" not in printed.err
    assert {path.name for path in folder.iterdir()} == {"a.jpg", "file", "folder", "binary", "few.txt"}


def test_labels_of_another_model() -> None:
    found = Detections(np.zeros((1, 4), np.float32), np.ones(1, np.float32), np.array([17], np.int32))
    with pytest.raises(ConfigError, match="got class 17 from the detector, expected one below 2"):
        found.with_labels(("background", "person")).to_json()


# --- Literals that verbs repeat, so that their help needs no library --------------------------------------------------


def defaults_of(verb: str) -> dict[str, object]:
    return {action.dest: action.default for action in verb_parser(verb, verb, Config())._actions}


def test_repeated_literals_are_those_of_their_owners() -> None:
    assert drain._WAYS == WAYS
    assert get_args(Precision) == engine._PRECISIONS
    assert tuple(WEATHERS) == render_scenario._WEATHERS
    assert {one.execution_provider for one in VARIANTS.values()} - {None} <= set(quantize._PROVIDERS)
    scenario = defaults_of("render-scenario")
    assert scenario["weather"] == next(iter(WEATHERS))
    assert scenario["size"] == DEFAULT_SIZE_PX
    assert scenario["fps"] == defaults_of("evaluate-braking")["fps"] == DEFAULT_FPS
    assert inspect.signature(simulate).parameters["fps"].default == DEFAULT_FPS
