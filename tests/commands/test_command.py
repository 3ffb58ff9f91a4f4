"""The command ssd-triton: its verbs, their help, the configuration that they get, and completion."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ssd_triton.commands import runner
from ssd_triton.commands.options import FIELDS, KeyAction
from ssd_triton.commands.parser import parse_verb, verb_module, verb_parser
from ssd_triton.commands.verbs import VERBS
from ssd_triton.common.files import ROOT
from ssd_triton.config import Config
from tests.conftest import assert_one_line_error, assert_wrong_usage

Run = Callable[..., "subprocess.CompletedProcess[str]"]
HEAVY = {"av", "cv2", "matplotlib", "numpy", "onnx", "onnxruntime", "scipy", "torch", "tritonclient"}


@pytest.fixture
def command(tmp_path: Path) -> Run:
    """Run ``ssd-triton`` in a process of its own."""

    def run(*arguments: object, code: str = "") -> subprocess.CompletedProcess[str]:
        program = f"import sys; {code}\nfrom ssd_triton.commands import main; sys.argv[0] = 'ssd-triton'; main()"
        return subprocess.run(
            [sys.executable, "-c", program, *map(str, arguments)],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


def test_the_overview_lists_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert runner.run_command(["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for verb in VERBS.values():
        assert any(re.match(rf"  {verb.name} +{re.escape(verb.summary)}$", line) for line in lines)
        assert f"{verb.group}:" in lines
    assert max(map(len, lines)) <= 88
    assert runner.run_command([]) == 2


def test_the_overview_needs_no_library_at_all(command: Run) -> None:
    code = "sys.modules.update(dict.fromkeys(['pydantic', 'yaml', 'numpy', 'tqdm']))"
    result = command("--help", code=code)
    assert result.returncode == 0, result.stderr
    assert "coco-eval" in result.stdout


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_a_verb(verb: str) -> None:
    text = verb_parser(verb, f"ssd-triton {verb}", Config()).format_help()
    assert f"usage: ssd-triton {verb} " in text
    assert f"  ssd-triton {verb}" in text.split("example:\n")[1]
    first_line = (verb_module(verb).__doc__ or "").splitlines()[0]
    assert first_line in text
    keys = [action for action in verb_parser(verb, verb, Config())._actions if isinstance(action, KeyAction)]
    assert text.replace("\n", " ").count("(default: ") >= len(keys)


def test_no_verb_imports_anything_heavy_for_its_help(command: Run) -> None:
    code = (
        "from ssd_triton.commands.parser import verb_parser; from ssd_triton.commands.verbs import VERBS\n"
        "from ssd_triton.config import Config\n"
        "for verb in VERBS: verb_parser(verb, verb, Config()).format_help()\n"
        f"assert not (set(sys.modules) & {HEAVY}), set(sys.modules) & {HEAVY}"
    )
    assert command("--version", code=code).stderr == ""


def test_an_unknown_verb_is_named_with_the_nearest(command: Run) -> None:
    assert_wrong_usage(command("detct"), "unknown verb 'detct'", "did you mean 'detect'?")
    assert_wrong_usage(command("qqqq"), "'ssd-triton --help' lists all verbs")


def test_version(command: Run) -> None:
    assert re.fullmatch(r"ssd-triton \d+\.\d+\.\d+\n", command("--version").stdout)


# --- Flags and the configuration --------------------------------------------------------------------------------------


def test_flags_come_before_set_before_files(tmp_path: Path) -> None:
    (tmp_path / "mine.yml").write_text(
        "{detect: {score_thresh: 0.1, output: out}, client: {timeout_s: 1, in_flight: 1}}"
    )
    argv = ["x.jpg", "--config", str(tmp_path / "mine.yml"), "--set", "client.timeout_s=2", "--in-flight", "3"]
    _, args, config = parse_verb("detect", [*argv, "--set", "client.in_flight=2"])
    assert args.inputs == ["x.jpg"]
    assert config.detect.score_thresh == 0.1
    assert config.detect.output == tmp_path / "out"
    assert config.client.timeout_s == 2
    assert config.client.in_flight == 3


@pytest.mark.parametrize(
    ("flags", "key", "value"),
    [
        (["--tf32"], "tensorrt.tf32", True),
        (["--set", "tensorrt.tf32=true", "--no-tf32"], "tensorrt.tf32", False),
        (["--runtime", "tensorrt-rtx"], "tensorrt.runtime", "tensorrt-rtx"),
        (["--builder-optimization-level", "5"], "tensorrt.builder_optimization_level", 5),
        (["--model-repository", "here"], "model_repository", Path.cwd() / "here"),
    ],
)
def test_a_flag_sets_its_key(flags: list[str], key: str, value: object) -> None:
    _, _, config = parse_verb("engine", flags)
    for name in key.split("."):
        config = getattr(config, name)
    assert config == value


def test_flags_of_numbers_that_are_choices_and_of_mappings() -> None:
    assert parse_verb("quantize", ["--weight-bits", "8"])[2].quantization.weight_bits == 8
    names = parse_verb("coco-eval", ["--name-map", "sofa=chair", "auto=car"])[2].coco.name_map
    assert names == {**Config().coco.name_map, "sofa": "chair", "auto": "car"}


def test_what_follows_two_dashes_is_passed_on() -> None:
    _, args, config = parse_verb("container", ["--variant", "x", "--", "--set", "--config=a"])
    assert args.triton_options == ["--set", "--config=a"]
    assert config.container.variant == "x"


@pytest.mark.parametrize("argument", ["--in-flight=0", "--timeout-s=nan", "--score-thresh=50", "--score-thresh=inf"])
def test_values_out_of_range_are_wrong_usage(command: Run, argument: str) -> None:
    option, value = argument.split("=")
    assert_wrong_usage(command("detect", "x.jpg", argument), f"argument {option}", f"got '{value}'")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["coco-eval", "--retry-s", "0"], ["argument --retry-s"]),
        (["soak", "--minutes", "inf"], ["argument --minutes", "finite"]),
        (["overload", "--in-flight", "0"], ["argument --in-flight"]),
        (["fetch-weights", "--retries", "101"], ["argument --retries"]),
        (["detect", "x", "--protocol", "htp"], ["argument --protocol", "grpc"]),
        (["detect", "x", "--scor-thresh", "0.3"], ["did you mean '--score-thresh'?"]),
        (["detect", "x", "--score", "0.3"], ["unrecognized arguments"]),
        (["detect", "x", "--set", "score_thresh"], ["expected KEY=VALUE"]),
        (["detect", "x", "--set", "score_thresh=0.3"], ["unknown key", "did you mean 'detect.score_thresh'?"]),
        (["detect", "x", "--set", "client.timeout_s=soon"], ["client.timeout_s", "got 'soon'"]),
        (["detect", "x", "--set", "client.timeout_s=.nan"], ["client.timeout_s", "finite"]),
        (["serve", "--model-control"], ["admin_key_file"]),
        (["train", "--name-map", "x"], ["argument --name-map", "NAME=VALUE"]),
    ],
)
def test_wrong_usage_is_one_line(command: Run, arguments: list[str], words: list[str]) -> None:
    assert_wrong_usage(command(*arguments), *words)


def test_a_missing_library_is_one_line_with_its_extra(command: Run) -> None:
    missing = "sys.modules.update(dict.fromkeys(['torch', 'cv2']))"
    assert_one_line_error(command("parity", code=missing), "torch is not installed", "pip install 'ssd-triton[export]'")
    assert_one_line_error(
        command("detect", "x.jpg", code="sys.modules['pydantic'] = None"), "source .venv/bin/activate"
    )


def test_every_flag_of_a_key_is_one_of_its_section() -> None:
    """A flag that says more than the name of its key is fine; two flags of one verb for one key are not."""
    for verb in VERBS:
        actions = verb_parser(verb, verb, Config())._actions
        keys = [action.key for action in actions if hasattr(action, "key")]
        assert len(keys) == len(set(keys))
        assert set(keys) <= set(FIELDS)


# --- config and completion --------------------------------------------------------------------------------------------


def test_config_prints_what_is_in_force_and_where_it_comes_from(command: Run, tmp_path: Path) -> None:
    (tmp_path / "mine.yml").write_text("detect: {score_thresh: 0.125}")
    result = command("config", "detect", "client.tls", "--config", "mine.yml", "--set", "client.tls.enabled=true")
    assert result.returncode == 0, result.stderr
    lines = [re.split(r" +# ", line) for line in result.stdout.splitlines()]
    assert lines == [
        ["client.tls.enabled: true", "--set"],
        ["client.tls.root_certificates: null", "default"],
        ["client.tls.certificate: null", "default"],
        ["client.tls.private_key: null", "default"],
        [f"detect.output: {tmp_path}/reports/detect", "default"],
        ["detect.score_thresh: 0.125", "mine.yml"],
        ["detect.format: json", "default"],
        ["detect.pictures: true", "default"],
        ["detect.crops: false", "default"],
    ]
    assert_one_line_error(command("config", "detct"), "unknown key 'detct'")


def test_config_prints_schema_and_reference(command: Run) -> None:
    assert json.loads(command("config", "--schema").stdout)["title"] == "Configuration of ssd-triton"
    assert command("config", "--reference").stdout.startswith("# Configuration\n")


def test_completion_is_valid_and_knows_verbs_and_options(command: Run, tmp_path: Path) -> None:
    result = command("completion", "bash")
    assert result.returncode == 0, result.stderr
    script = tmp_path / "completion.bash"
    script.write_text(result.stdout)
    subprocess.run(["bash", "-n", script], check=True)
    ask = 'source "$1"; COMP_WORDS=("${@:2}"); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); '
    ask += '$(complete -p ssd-triton | sed "s/.*-F \\([^ ]*\\) .*/\\1/"); echo "${COMPREPLY[@]}"'

    def completed(*words: str) -> list[str]:
        done = subprocess.run(["bash", "-c", ask, "bash", script, *words], capture_output=True, text=True, check=True)
        return done.stdout.split()

    assert completed("ssd-triton", "rend") == ["render-scenario", "render-dataset"]
    assert "--score-thresh" in completed("ssd-triton", "detect", "--sc")
    assert completed("ssd-triton", "detect", "--protocol", "") == ["grpc", "http"]
    assert command("completion", "zsh").stdout.startswith("#compdef ssd-triton")
