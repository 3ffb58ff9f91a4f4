"""Averages of two networks, the choice among them, and everything up to default weights in one go, on a CPU."""

from __future__ import annotations

import copy
import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from ssd_triton.common.detections import Detections
from ssd_triton.common.errors import ConfigError, ImageError
from ssd_triton.common.files import ROOT
from ssd_triton.config import Config, load_config
from ssd_triton.detector.network.ssd import SSD300
from ssd_triton.evaluation.drive import count_classes, detect_drive
from ssd_triton.evaluation.metrics import Metrics
from ssd_triton.simulation.judging.visibility import Criteria, Visibility
from ssd_triton.training.candidates import Candidate, choose
from ssd_triton.training.fp16_range import LARGEST_FP16, convolutions_with_norms, match_scales, rescale_for_fp16
from ssd_triton.training.initial_network import new_network
from ssd_triton.training.interpolate import interpolated, shift_classes
from ssd_triton.training.model_card import CARD
from ssd_triton.training.train import WEIGHTS
from tests.conftest import assert_one_line_error

LABELS = ("background", "person", "car", "bus", "truck")
Run = Callable[..., "subprocess.CompletedProcess[str]"]


def network(seed: int) -> SSD300:
    return new_network("resnet18", len(LABELS), seed).eval()


def test_shares_by_hand() -> None:
    first, second = network(0), network(1)
    norms = [convolutions_with_norms(one)[0].norm for one in (first, second)]
    norms[0].running_var.fill_(1.0)  # type: ignore[union-attr, operator]
    norms[1].running_var.fill_(3.0)  # type: ignore[union-attr, operator]
    for share, whole in ((0.0, first), (1.0, second)):
        mixed = interpolated(first, second, share).state_dict()
        assert all(torch.equal(value, mixed[name]) for name, value in whole.state_dict().items())
    quarter = interpolated(first, second, 0.25)
    assert convolutions_with_norms(quarter)[0].norm.running_var[0].item() == pytest.approx(1.5)  # type: ignore[index]
    bias, biases = quarter.conf[0].weight, (first.conf[0].weight, second.conf[0].weight)
    torch.testing.assert_close(bias, 0.75 * biases[0] + 0.25 * biases[1])


def test_a_shift_adds_to_the_logits_of_its_class_alone() -> None:
    images = torch.rand(2, 3, 300, 300, generator=torch.Generator().manual_seed(0))
    shifted = copy.deepcopy(plain := network(0))
    shift_classes(shifted, {LABELS.index("car"): -0.5, LABELS.index("person"): 0.25})
    with torch.no_grad():
        (loc, conf), (loc_shifted, conf_shifted) = plain(images), shifted(images)
    torch.testing.assert_close(loc_shifted, loc, rtol=0, atol=0)
    expected = torch.tensor([0.0, 0.25, -0.5, 0.0, 0.0]).view(1, len(LABELS), 1).expand_as(conf)
    torch.testing.assert_close(conf_shifted - conf, expected, rtol=0, atol=1e-5)


def test_channels_rescaled_for_fp16_in_one_network_only_are_averaged_as_the_same_function() -> None:
    plain = network(0)
    stem = convolutions_with_norms(plain)[0]
    with torch.no_grad():
        stem.convolution.weight[:8].mul_(250)
        stem.norm.running_mean[:8] = 200.0  # type: ignore[index]
        stem.norm.running_var[:8] = 90_000.0  # type: ignore[index]
    rescaled, image = copy.deepcopy(plain), torch.rand(1, 3, 300, 300)
    assert rescale_for_fp16(rescaled) == 8
    wrong = interpolated(rescaled, plain, 0.5)
    assert not torch.allclose(after_the_stem(wrong, image), after_the_stem(plain, image), atol=0.1)
    assert match_scales(rescaled, plain) == 8
    assert match_scales(rescaled, plain) == 0
    average = interpolated(rescaled, plain, 0.5)
    torch.testing.assert_close(after_the_stem(average, image), after_the_stem(plain, image), atol=1e-3, rtol=1e-3)
    assert convolutions_with_norms(average)[0].norm.running_var.max() > LARGEST_FP16  # type: ignore[union-attr, operator]
    assert rescale_for_fp16(average) == 8
    torch.testing.assert_close(after_the_stem(average, image), after_the_stem(plain, image), atol=1e-3, rtol=1e-3)


def after_the_stem(one: SSD300, image: torch.Tensor) -> torch.Tensor:
    """What the first convolution and its norm make of an image."""
    pair = convolutions_with_norms(one)[0]
    with torch.inference_mode():
        found: torch.Tensor = pair.norm(pair.convolution(image))
        return found


def candidate(name: str, photographs_ap: float, rendered_ap: float) -> Candidate:
    metrics = tuple(Metrics({"AP": ap}, (), np.zeros((10, 101)), ()) for ap in (photographs_ap, rendered_ap))
    seen = Visibility((), Criteria(0.5, 0.5, 0.3, 0.5, 40, 3), {})
    return Candidate(name, 0.5, metrics, (None, seen), photographs_ap + 0.3 * rendered_ap)


@pytest.mark.parametrize(
    ("max_loss", "expected"),
    [
        pytest.param(0.0, "better", id="nothing may be lost on photographs"),
        pytest.param(0.01, "most", id="a little may"),
        pytest.param(1.0, "rendered only", id="all may: the score alone counts"),
    ],
)
def test_the_best_of_those_that_keep_what_the_first_can(max_loss: float, expected: str) -> None:
    candidates = [
        candidate("first", 0.080, 0.1),
        candidate("better", 0.081, 0.3),
        candidate("most", 0.075, 0.6),
        candidate("rendered only", 0.010, 0.9),
    ]
    assert choose(candidates, max_loss).name == expected


def test_counts_of_a_drive() -> None:
    boxes = np.zeros((3, 4), np.float32)
    two_cars_and_a_bus = Detections(boxes, np.ones(3, np.float32), np.array([2, 2, 3], np.int32))
    nothing = Detections(boxes[:0], np.ones(0, np.float32), np.zeros(0, np.int32))
    counts = count_classes([two_cars_and_a_bus, nothing], LABELS)
    assert counts.row("weights") == ["weights", "car in 1 of 2", "1", "bus 1"]
    assert count_classes([nothing], LABELS).row("weights") == ["weights", "nothing", "", ""]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "got 0 bytes"),
        (b"no image", "got 8 bytes that begin with b'no image'"),
        (None, "got an image that is damaged"),
    ],
)
def test_a_damaged_frame_of_a_drive_is_named(content: bytes | None, words: str, tmp_path: Path) -> None:
    whole = (ROOT / "docs/demo.jpg").read_bytes()
    (tmp_path / "0001.jpg").write_bytes(whole[: len(whole) // 2] if content is None else content)
    network = new_network("resnet18", 3, 0)
    with pytest.raises(ImageError, match=rf"0001\.jpg: {re.escape(words)}"):
        detect_drive(network, torch.device("cpu"), tmp_path, 0.5)


def test_recipes(config: Config, tmp_path: Path) -> None:
    settings, fine = config.training, load_config(ROOT / "recipes/fine_tune.yml").training
    assert fine.optimizer.backbone_lr <= settings.optimizer.backbone_lr
    assert fine.loss.smooth_l1_beta < settings.loss.smooth_l1_beta
    assert fine.loss.teacher_weight > settings.loss.teacher_weight
    assert fine.loss.negatives_per_positive == settings.loss.negatives_per_positive
    assert fine.frozen_batch_norms
    assert not fine.optimizer.ema_warmup
    assert fine.optimizer.clip_norm == settings.optimizer.clip_norm
    load_config(ROOT / "recipes/photographs.yml")
    for text, words in (
        ("training: {optimizer: {had_lr: 1}}", "did you mean 'training.optimizer.head_lr'"),
        ("training: {steps: 0}", "training.steps: "),
        ("- steps", "expected keys and values"),
    ):
        (tmp_path / "mine.yml").write_text(text)
        with pytest.raises(ConfigError, match=words):
            load_config(tmp_path / "mine.yml")


def test_learning_rates_of_the_command_line_come_before_the_recipe(run_main: Run, tmp_path: Path) -> None:
    (tmp_path / "mine.yml").write_text("training: {steps: 77, optimizer: {head_lr: 0.5}}")
    result = run_main("tools/train.py", "--config", "mine.yml", "--help")
    assert "default: 77" in result.stdout
    assert "default: 0.5" in result.stdout
    assert_one_line_error(run_main("tools/train.py", "--config", "none.yml", "--data", "a", "b"), "--config FILE")
    assert run_main("tools/train.py", "--head-lr", "-1").returncode == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["a.safetensors", "b.safetensors"], ["--validation IMAGES ANNOTATIONS"]),
        (["a.safetensors", "b.safetensors", "--validation", "x"], ["--validation", "IMAGES ANNOTATIONS"]),
        (["a.safetensors", "b.safetensors", "--validation", "x", "y.json"], ["weights not found"]),
        (["a.safetensors", "b.safetensors", "--validation", "x", "y.json", "--shift", "cat-o=1"], ["'cat-o'"]),
    ],
)
def test_wrong_usage_is_one_line(run_main: Run, arguments: list[str], words: list[str]) -> None:
    result = run_main("tools/interpolate_weights.py", *arguments, "--output-folder", "out")
    assert_one_line_error(result, *words)


def write_photographs(folder: Path, name: str, seed: int, count: int = 2) -> tuple[Path, Path]:
    """Noise with a grey rectangle for each of two classes."""
    rng = np.random.default_rng(seed)
    (folder / name).mkdir()
    images, annotations = [], []
    for index in range(1, count + 1):
        pixels = rng.integers(0, 255, (200, 240, 3), dtype=np.uint8)
        for category, (left, top) in ((1, (10, 20)), (3, (120, 60))):
            pixels[top : top + 90, left : left + 100] = 40 * category
            annotations.append({"image_id": index, "category_id": category, "bbox": [left, top, 100, 90]})
        Image.fromarray(pixels).save(folder / name / f"{name}{index}.png")
        images.append({"id": index, "file_name": f"{name}{index}.png"})
    categories = [{"id": 1, "name": "person"}, {"id": 3, "name": "car"}]
    path = folder / f"{name}.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return folder / name, path


@pytest.mark.timeout(600)  # on busy cores; under a minute alone
@pytest.mark.slow
def test_default_weights_in_one_go(run_script: Run, tmp_path: Path) -> None:
    """Every stage on a few images: the figures mean nothing, what is written does."""
    train, val = write_photographs(tmp_path, "train", 0), write_photographs(tmp_path, "val", 1, count=1)
    safetensors.torch.save_file(dict(network(0).state_dict()), tmp_path / "checkpoint.safetensors")
    place = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3"}
    backbone = network(1).feature_extractor.feature_extractor.state_dict()
    arrays = {re.sub(r"^\d+", lambda found: place[found[0]], name): value.numpy() for name, value in backbone.items()}
    np.savez(tmp_path / "backbone.npz", **arrays)
    (tmp_path / "labels.txt").write_text("\n".join(LABELS))
    (tmp_path / "config.yml").write_text("{backbone: resnet18, labels_path: labels.txt}")
    arguments = [
        *("--config", "config.yml", "--photographs", *train, "--validation", *val, "--output", "out"),
        *("--checkpoint", "checkpoint.safetensors", "--compare-backbone-weights", "backbone.npz", "--drive", val[0]),
        *("--rendered", "1", "1", "--processes", "1", "--photographs-steps", "2", "--fine-tune-steps", "1"),
        *("--batch", "2", "--shares", "0.5", "--shift", "car=-0.3", "--device", "cpu", "--max-loss", "1"),
    ]
    result = run_script("tools/train_default_weights.py", *arguments, timeout_s=500)
    assert result.returncode == 0, result.stderr
    for words in ("| share 0.5", "| share 1", "weights.safetensors |", "rendered val_903: AP", " in "):
        assert words in result.stdout
    out = tmp_path / "out"
    published = safetensors.torch.load_file(out / "chosen" / WEIGHTS)
    assert all(torch.isfinite(value).all() for value in published.values())
    names = {path.name for path in (out / "chosen").iterdir()}
    assert {WEIGHTS, CARD, "figures.md", "interpolation.png", "drive.jpg", "fine_tuned.curves.png"} <= names
    assert (out / "chosen/rendered_recall/recall.png").stat().st_size > 0
    card = (out / "interpolated" / CARD).read_text()
    for words in (
        "averaged in FP32",
        "## The second network",
        "the checkpoint `checkpoint.safetensors`",
        "the checkpoint `weights.safetensors`",
    ):
        assert words in card
    record = json.loads((out / "interpolated/interpolation.json").read_text())
    assert [one["share"] for one in record["candidates"]] == [0.0, 0.5, 1.0, None]
    assert record["shifts"] == {"car": -0.3}
    assert record["candidates"][0]["relevant_recall"][0] is None
