"""The configuration: what a file may hold, what is merged in which order, and what is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from ssd_triton.common.errors import ConfigError
from ssd_triton.common.files import ROOT
from ssd_triton.config import Config, layers, load_config
from ssd_triton.config.layers import assignment, dotted_layer, file_layers, merge, origins
from ssd_triton.config.model import fields, section_of
from ssd_triton.config.reference import json_schema, reference


def write(folder: Path, text: str) -> Path:
    path = folder / "config.yml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_file_holds_only_what_differs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    changed, defaults = load_config(write(tmp_path, "server: {grpc_port: 9001}")), load_config(write(tmp_path, ""))
    assert changed.server.grpc_port == 9001
    assert changed.server.http_port == defaults.server.http_port
    expected = defaults.model_copy(update={"server": defaults.server.model_copy(update={"grpc_port": 9001})})
    assert changed == expected


def test_the_project_s_file_comes_below_other_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_config() == load_config(ROOT / "config.yml") == merge([])
    project = tmp_path / "project.yml"
    monkeypatch.setattr(layers, "PROJECT_FILE", project)
    other = write(tmp_path, "detect: {score_thresh: 0.2}")
    assert load_config(other).variant == Config().variant
    project.write_text("{variant: mine, detect: {score_thresh: 0.1}}")
    assert (load_config().variant, load_config().detect.score_thresh) == ("mine", 0.1)
    assert (load_config(other).variant, load_config(other).detect.score_thresh) == ("mine", 0.2)


def test_mappings_are_merged_key_by_key(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, "accuracy: {mine: 0.1}\ntracking: {object_sizes: {car: {height_m: 1.6}}}"))
    assert config.accuracy == {"mine": 0.1}
    car, usual = config.tracking.object_sizes["car"], Config().tracking.object_sizes["car"]
    assert car == usual.model_copy(update={"height_m": 1.6})
    assert load_config(write(tmp_path, "braking: {classes: [car]}")).braking.classes == ("car",)


def test_paths_are_relative_to_the_file_or_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "settings").mkdir()
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    file = write(tmp_path / "settings", "{weights_path: mine.pt, demo: {video: clip.mp4}, server: {tls: {}}}")
    config = merge([*file_layers([file]), dotted_layer("--set", [("camera.file", "camera.yml")])])
    assert config.weights_path == tmp_path / "settings/mine.pt"
    assert config.demo.video == tmp_path / "settings/clip.mp4"
    assert config.camera.file == tmp_path / "work/camera.yml"
    assert config.detect.output == tmp_path / "work/reports/detect"
    assert config.labels_path == ROOT / "model_repository/ssd_detector/labels.txt"


def test_later_layers_win(tmp_path: Path) -> None:
    (tmp_path / "second.yml").write_text("{detect: {score_thresh: 0.2}, variant: onnx_fp32}")
    files = file_layers([write(tmp_path, "{detect: {score_thresh: 0.1}, backbone: resnet18}"), tmp_path / "second.yml"])
    command = [dotted_layer("--set", [assignment("client.timeout_s=5"), assignment("variant=pytorch_fp32")])]
    found = [*files, *command, dotted_layer("flags", [("client.timeout_s", 6.0)])]
    config = merge(found)
    assert (config.backbone, config.variant, config.detect.score_thresh) == ("resnet18", "pytorch_fp32", 0.2)
    assert config.client.timeout_s == 6.0
    assert {key: Path(origin).name for key, origin in origins(found).items()} == {
        "backbone": "config.yml",
        "detect.score_thresh": "second.yml",
        "variant": "--set",
        "client.timeout_s": "flags",
    }


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("- a", ["got list", "expected keys and values"]),
        ("a: [", ["not valid YAML"]),
        ("server: {grpc_prot: 8001}", ["unknown key 'server.grpc_prot'", "did you mean 'server.grpc_port'?"]),
        ("timeout_s: 3", ["unknown key 'timeout_s'", "did you mean 'client.timeout_s'?"]),
        ("backbon: resnet50", ["unknown key 'backbon'", "did you mean 'backbone'?"]),
        ("qqqq: 1", ["unknown key 'qqqq'", "'ssd-triton config' lists all keys"]),
        ("backbone: vgg16", ["backbone", "resnet18", "got 'vgg16'"]),
        ("server: {grpc_port: 70000}", ["server.grpc_port", "65535", "got 70000"]),
        ("server: 8001", ["server: ", "got 8001"]),
        ("client: {timeout_s: soon}", ["client.timeout_s", "got 'soon'"]),
        ("client: {timeout_s: .nan}", ["client.timeout_s", "finite"]),
        ("client: {timeout_s: .inf}", ["client.timeout_s", "finite"]),
        ("client: {in_flight: 0}", ["client.in_flight", "got 0"]),
        ("camera: {height_m: -1.3}", ["camera.height_m", "greater than 0"]),
        ("client: {in_flight: 4, in_flight: 5}", ["repeated key 'in_flight'"]),
        ("tracking: {object_sizes: {dog: {height_m: 0.5}}}", ["tracking.object_sizes.dog.width_m", "required"]),
        ("server: {model_control: true}", ["server: model_control", "admin_key_file"]),
    ],
)
def test_refuses(tmp_path: Path, text: str, words: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        load_config(write(tmp_path, text))
    message = str(error.value)
    assert "\n" not in message
    assert "config.yml: " in message or "config.yml is " in message
    for word in words:
        assert word in message


def test_every_problem_names_its_own_place(tmp_path: Path) -> None:
    wrong = [*file_layers([write(tmp_path, "backbone: vgg16")]), dotted_layer("--set", [("client.in_flight", 0)])]
    with pytest.raises(ConfigError, match=r"config\.yml: backbone: .*; --set: client\.in_flight: "):
        merge(wrong)


def test_keys_of_earlier_versions_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"config\.yml: key 'world' of an earlier version: renamed to 'simulation'"):
        load_config(write(tmp_path, "world: {step_s: 0.005}"))
    with pytest.raises(ConfigError, match="--set: key 'world' of an earlier version"):
        merge([dotted_layer("--set", [assignment("world.step_s=0.005")])])


def test_missing_file_names_the_option(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--config"):
        load_config(tmp_path / "none.yml")


@pytest.mark.parametrize("text", ["detect", "=3", "a=[", "a=*b"])
def test_what_is_no_assignment(text: str) -> None:
    with pytest.raises(ConfigError):
        assignment(text)


# --- The reference and the schema -------------------------------------------------------------------------------------


def test_every_key_is_described() -> None:
    undescribed = [key for key, field in fields() if not field.description]
    assert undescribed == []
    assert all(section_of(field) is None for _, field in fields())


def test_the_reference_has_every_key_and_nothing_of_this_machine() -> None:
    text = reference()
    assert str(ROOT) not in text
    for key, _ in fields():
        section, _, name = key.rpartition(".")
        part = text.split(f"## `{section}`\n")[1] if section else text
        assert f"\n| `{name}` | " in part.split("\n## ")[0], key
    assert "| `deceleration_mps2` | number, ≥ 0.1, ≤ 50 | `5.0` m/s² |" in text
    assert "| `protocol` | `grpc` or `http` | `grpc` |" in text
    assert all(line.count(" | ") == 3 for line in text.splitlines() if re.match(r"\| `", line))


def test_the_schema_takes_what_is_right_and_no_more() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = json_schema()
    assert str(ROOT) not in json.dumps(schema)
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    for text in ("{}", "server: {grpc_port: 1}", "demo: {video: 0}", (ROOT / "recipes/fine_tune.yml").read_text()):
        assert list(validator.iter_errors(yaml.safe_load(text))) == []
    for text in ("server: {grpc_prot: 1}", "detect: {score_thresh: 2}", "backbone: vgg16"):
        assert len(list(validator.iter_errors(yaml.safe_load(text)))) == 1
