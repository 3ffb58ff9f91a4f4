"""config.yml: what it accepts, and what it says of what it does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from ssd_triton.common.errors import ConfigError
from ssd_triton.common.files import ROOT
from ssd_triton.config import load_config

TEXT = (ROOT / "config.yml").read_text(encoding="utf-8")


def write(folder: Path, text: str) -> Path:
    path = folder / "config.yml"
    path.write_text(text, encoding="utf-8")
    return path


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, TEXT))
    assert config.weights_path == tmp_path / "weights/ssd300_resnet50_demo.safetensors"
    assert config.detect.output == tmp_path / "reports/detect"


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        (TEXT, "", ["got NoneType", "expected keys and values"]),
        (TEXT, "a: [", ["not valid YAML"]),
        ("grpc_port: 8001", "grpc_prot: 8001", ["unknown key 'server.grpc_prot'", "did you mean 'grpc_port'?"]),
        ("backbone: resnet50", "backbon: resnet50", ["unknown key 'backbon'", "did you mean 'backbone'?"]),
        ("backbone: resnet50", "backbone: vgg16", ["backbone", "resnet18", "got 'vgg16'"]),
        ("grpc_port: 8001", "grpc_port: 70000", ["server.grpc_port", "65535", "got 70000"]),
        ("timeout_s: 30 ", "timeout_s: soon ", ["client.timeout_s", "got 'soon'"]),
        ("  height_m: 1.3", "  height_m: -1.3", ["camera.height_m", "greater than 0"]),
        ("  in_flight: 4", "  in_flight: 4\n  in_flight: 5", ["repeated key 'in_flight'"]),
        ("  in_flight: 4", "", ["client.in_flight", "required"]),
    ],
)
def test_refuses(tmp_path: Path, before: str, after: str, words: list[str]) -> None:
    assert before in TEXT
    with pytest.raises(ConfigError) as error:
        load_config(write(tmp_path, TEXT.replace(before, after)))
    message = str(error.value)
    assert "\n" not in message
    assert "config.yml" in message
    for word in words:
        assert word in message


def test_missing_file_names_the_option(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--config"):
        load_config(tmp_path / "none.yml")
