"""The scripts: the same as verbs, by the names that a user types."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ssd_triton.commands.verbs import VERBS
from ssd_triton.common.files import ROOT
from tests.conftest import assert_one_line_error

RunScript = Callable[..., "subprocess.CompletedProcess[str]"]
SCRIPTS = sorted(
    str(path.relative_to(ROOT)) for folder in ("tools", "clients", "perf") for path in (ROOT / folder).glob("*.py")
)


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_shows_an_example(run_main: RunScript, script: str) -> None:
    result = run_main(script, "--help")
    assert result.returncode == 0, result.stderr
    assert f"python {ROOT / script}" in result.stdout
    assert "KEY=VALUE" in result.stdout


@pytest.mark.parametrize("script", SCRIPTS)
def test_wrong_usage_exits_2(run_main: RunScript, script: str) -> None:
    result = run_main(script, "--no-such-option")
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    assert script in result.stderr


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_is_one_verb(script: str) -> None:
    text = (ROOT / script).read_text(encoding="utf-8")
    [verb] = re.findall(r'main\("(.*)"\)', text)
    assert text.startswith(f'"""Script for \'ssd-triton {verb}\': {VERBS[verb].summary}')
    assert len(text.splitlines()) <= 12


def test_all_verbs_but_those_about_the_command_have_a_script() -> None:
    texts = "".join((ROOT / script).read_text(encoding="utf-8") for script in SCRIPTS)
    assert set(VERBS) - set(re.findall(r'main\("(.*)"\)', texts)) == {"config", "completion"}


def test_without_the_package_a_script_says_what_to_type(tmp_path: Path) -> None:
    script = ROOT / "clients/detect.py"
    result = subprocess.run(
        [sys.executable, "-I", "-S", script, "x.jpg"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert_one_line_error(result, str(script), "ssd_triton", "source .venv/bin/activate", "make setup")
    assert len(result.stderr.splitlines()) == 1


def test_the_configuration_s_values_are_the_defaults(run_main: RunScript, tmp_path: Path) -> None:
    (tmp_path / "mine.yml").write_text("detect: {score_thresh: 0.125}", encoding="utf-8")
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
    assert_one_line_error(result, "no Triton server answers at 127.0.0.1:9", "ssd-triton serve")


@pytest.mark.parametrize(("argument", "words"), [("nope.jpg", "not found: nope.jpg"), ("empty", "empty: got no image")])
def test_detect_without_images(run_main: RunScript, tmp_path: Path, argument: str, words: str) -> None:
    (tmp_path / "empty").mkdir()
    assert_one_line_error(run_main("clients/detect.py", argument), words)
