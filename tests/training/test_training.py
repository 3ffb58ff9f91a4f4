"""Whole trainings on a CPU."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from ssd_triton.common.files import ROOT
from ssd_triton.config import Config, TrainingConfig
from ssd_triton.detector.network.ssd import ServedDetector
from ssd_triton.detector.weights.file import WeightsFile
from ssd_triton.evaluation.dataset import DatasetSource, load_dataset
from ssd_triton.training.class_map import ClassMap
from ssd_triton.training.errors import TrainingError
from ssd_triton.training.examples import Source
from ssd_triton.training.initial_network import InitialWeights
from ssd_triton.training.model_card import CARD
from ssd_triton.training.train import WEIGHTS, TrainingRequest, train
from ssd_triton.training.trainer import SNAPSHOT
from tests.conftest import assert_one_line_error, group_members
from tests.evaluation.helpers import evaluate_network
from tests.interruptible import Interruptible
from tests.training.helpers import LABELS, changed, loss_settings, write_set

CPU = torch.device("cpu")


def tiny(config: Config, output: Path, **changes: Any) -> TrainingConfig:
    return config.training.model_copy(update={"output": output, "source_px": 300, "log_every": 1, **changes})


def request_of(training: Sequence[Source], validation: Sequence[Source]) -> TrainingRequest:
    return TrainingRequest(training, validation, ClassMap(LABELS, LABELS, {}), InitialWeights("resnet18"))


def two_sets(folder: Path) -> TrainingRequest:
    """The validation set has the same pixels under other names and in other files, to show how well they are learnt."""
    sets = [write_set(folder, "train"), write_set(folder, "val", compress=1)]
    return request_of(sets[:1], sets[1:])


@pytest.mark.slow
def test_resumed_training_is_the_same_bit_for_bit(config: Config, tmp_path: Path) -> None:
    request = request_of(two_sets(tmp_path).training, ())
    whole, parts = (
        tiny(config, tmp_path / name, steps=2, batch=2, validate_every=100, dropout=0.2) for name in ("whole", "parts")
    )
    train(request, whole, CPU)
    stopped = train(request, parts, CPU, stop_after=1)
    assert stopped.step == 1
    assert not (parts.output / WEIGHTS).exists()
    with pytest.raises(TrainingError, match="holds a training already"):
        train(request, parts, CPU)
    with pytest.raises(TrainingError, match=r"training\.seed was 0, now 1"):
        train(request, parts.model_copy(update={"seed": 1}), CPU, resume=True)
    resumed = train(request, parts, CPU, resume=True)
    assert [row.step for row in resumed.log] == [1, 2]
    one, other = (torch.load(each.output / SNAPSHOT, weights_only=True) for each in (whole, parts))
    assert one["schedule"] == other["schedule"]
    for part in ("network", "average"):
        assert all(torch.equal(value, other[part][name]) for name, value in one[part].items())
    published = [safetensors.torch.load_file(each.output / WEIGHTS) for each in (whole, parts)]
    assert all(torch.equal(value, published[1][name]) for name, value in published[0].items())


@pytest.mark.timeout(600)  # on busy cores; under a minute alone
@pytest.mark.slow
def test_four_images_are_learnt_by_heart(config: Config, tmp_path: Path) -> None:
    settings = tiny(
        config,
        tmp_path / "out",
        steps=48,
        batch=2,
        validate_every=48,
        frozen_stages=3,
        dropout=0.0,
        batch_norm_momentum=0.3,  # statistics of the last steps are good after few of them
        augmentation=changed(config),
        loss=loss_settings(),
        optimizer=config.training.optimizer.model_copy(
            update={"backbone_lr": 2e-3, "head_lr": 2e-3, "weight_decay": 0.0, "warmup_steps": 4, "ema_decay": 0.5}
        ),
    )
    request = two_sets(tmp_path)
    record = train(request, settings, CPU)
    assert record.best_score is not None
    assert record.best_score > 0.9
    assert record.log[-1].loss < record.log[0].loss / 10
    for name in (CARD, "log.csv", "validations.csv", "curves.png", "augmented.png", "labels.txt", SNAPSHOT):
        assert (settings.output / name).stat().st_size > 0, name
    card = (settings.output / CARD).read_text()
    assert f"{record.best_score:.3f}" in card
    network = WeightsFile(settings.output / WEIGHTS).load_network("resnet18", len(LABELS))
    source = request.validation[0]
    dataset = load_dataset(DatasetSource(source.images, source.annotations), LABELS)
    # The published FP16 weights through the offline reference itself.
    metrics = evaluate_network(ServedDetector(network).eval(), dataset, batch_size=2)
    assert metrics.ap == pytest.approx(record.best_score, abs=0.02)


def test_validation_images_are_never_trained_on(config: Config, tmp_path: Path) -> None:
    request = two_sets(tmp_path)
    settings = tiny(config, tmp_path / "out", steps=1, batch=2)
    same_name = request_of(request.training, request.training)
    with pytest.raises(TrainingError, match=r"4 of 4 images of .* are validation images: train0"):
        train(same_name, settings, CPU)
    (tmp_path / "val" / "val2.png").write_bytes((tmp_path / "train" / "train1.png").read_bytes())
    with pytest.raises(TrainingError, match=r"1 of 4 images of .* are validation images: train1\.png"):
        train(request, settings, CPU)


Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["--data"]),
        (["--data", "nowhere"], ["--data", "IMAGES ANNOTATIONS"]),
        (["--data", "nowhere", "nothing.json"], ["cannot read", "nothing.json"]),
        (["--data", "a", "b.json", "much"], ["weight 'much'"]),
        (["--data", "a", "b.json", "--classes", "carr"], ["nearest: 'car'"]),
        (["--data", "a", "b.json", "--new-heads"], ["--new-heads without --checkpoint"]),
        (["--taught-data", "a", "b.json"], ["--taught-data without --checkpoint"]),
    ],
)
def test_wrong_usage_is_one_line(run_main: Run, arguments: list[str], words: list[str]) -> None:
    assert_one_line_error(run_main("tools/train.py", *arguments, "--backbone", "resnet18"), *words)


@pytest.mark.slow
def test_interrupted_training_leaves_a_whole_snapshot(config: Config, tmp_path: Path) -> None:
    source = write_set(tmp_path, "train")
    (tmp_path / "labels.txt").write_text("\n".join(LABELS))
    (tmp_path / "config.yml").write_text("training: {validate_every: 1}")
    arguments = [
        *("--config", tmp_path / "config.yml", "--labels-path", tmp_path / "labels.txt", "--backbone", "resnet18"),
        *("--data", source.images, source.annotations, "--output", tmp_path / "out", "--batch", "2", "--device", "cpu"),
    ]
    command = [sys.executable, str(ROOT / "tools/train.py"), *map(str, arguments)]
    snapshot = tmp_path / "out" / SNAPSHOT
    with Interruptible(command, cwd=tmp_path, stderr=subprocess.PIPE, start_new_session=True) as process:
        deadline = time.monotonic() + 90
        while not snapshot.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGINT)
        _, stderr = process.communicate(timeout=30)
    assert process.returncode == 130, stderr
    assert "Traceback" not in stderr
    assert torch.load(snapshot, weights_only=True)["record"]["step"] >= 1
    assert not [path.name for path in snapshot.parent.iterdir() if ".part" in path.name]
    assert not group_members(process.pid)
