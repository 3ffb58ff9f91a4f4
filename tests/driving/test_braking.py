"""What to brake for, and the command-line flags of camera and braking."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from ssd_triton.commands.parser import parse_verb
from ssd_triton.commands.verbs.demo import camera_settings
from ssd_triton.common.errors import ConfigError, UserError
from ssd_triton.config import Config
from ssd_triton.driving.braking.pipeline import gate_class_ids


@pytest.mark.parametrize(
    ("classes", "hint"),
    [
        (["car", "motorcycl"], "got 'motorcycl', expected a class of the model; did you mean 'motorcycle'?"),
        (["qqq"], "got 'qqq', expected a class of the model; see the file at labels_path"),
        (["background"], "got 'background', expected a class of the model"),
    ],
)
def test_classes_that_the_model_does_not_know(labels: tuple[str, ...], classes: list[str], hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        gate_class_ids(labels, classes)
    assert hint in str(caught.value)


def test_the_configured_classes_are_known(config: Config, labels: tuple[str, ...]) -> None:
    ids = gate_class_ids(labels, config.braking.classes)
    assert {labels[class_id] for class_id in ids} == {"person", "bicycle", "car", "motorcycle", "bus", "truck"}


# --- Flags ------------------------------------------------------------------------------------------------------------


def parse(*arguments: str) -> tuple[argparse.Namespace, Config]:
    _, args, config = parse_verb("demo", arguments)
    return args, config


def test_without_flags_the_configuration_holds(config: Config) -> None:
    assert parse()[1] == config


def test_flags_override_the_configuration(config: Config) -> None:
    flags = ("--pitch-deg", "-2.5", "--ego-speed-kmh", "30", "--classes", "person", "car", "--score-thresh", "0.25")
    _, changed = parse(*flags, "--video", "7")
    assert changed.camera == config.camera.model_copy(update={"pitch_deg": -2.5})
    expected = {"ego_speed_kmh": 30.0, "classes": ("person", "car")}
    assert changed.braking == config.braking.model_copy(update=expected)
    assert changed.demo == config.demo.model_copy(update={"score_thresh": 0.25, "video": 7})


def test_a_camera_file_and_numbers_contradict_each_other(config: Config) -> None:
    expected = config.camera.model_copy(update={"file": Path.cwd() / "mine.yml"})
    assert camera_settings(*parse("--camera", "mine.yml")) == expected
    with pytest.raises(UserError, match=r"got --pitch-deg, --yaw-deg beside the camera file mine\.yml"):
        camera_settings(*parse("--camera", "mine.yml", "--pitch-deg", "2", "--yaw-deg", "1"))


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("--pitch-deg", "45"),
        ("--height-m", "0"),
        ("--horizontal-fov-deg", "180"),
        ("--yaw-deg", "-45"),
        ("--ego-speed-kmh", "-1"),
        ("--ego-speed-kmh", "nan"),
        ("--ego-speed-kmh", "inf"),
        ("--deceleration-mps2", "zero"),
        ("--score-thresh", "1.1"),
    ],
)
def test_flags_have_the_limits_of_the_configuration(capsys: pytest.CaptureFixture[str], flag: str, value: str) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(flag, value)
    assert caught.value.code == 2
    assert f"argument {flag}: input should be" in capsys.readouterr().err
