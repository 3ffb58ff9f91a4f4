"""The command lines, run as a user runs them: help, exit codes, one-line errors."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from ssd_triton.common.files import ROOT
from tests.conftest import assert_one_line_error

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
