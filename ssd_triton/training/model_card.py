"""The model card of trained weights: what they are, what they were trained on, how good they are, where they fail."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import torch

from ssd_triton.common.files import atomic_output, sha256_of
from ssd_triton.config import TrainingConfig
from ssd_triton.evaluation.metrics import Metrics
from ssd_triton.training.examples import Examples
from ssd_triton.training.history import Record
from ssd_triton.training.trainer import Best
from ssd_triton.training.validation import ValidationSet

CARD = "MODEL_CARD.md"
_FEWEST_LISTED = 20
"""Classes with fewer validation boxes get no line of their own: their figure is mostly chance."""
COMMON_LIMITS = (
    "- The weights were chosen on the validation sets above, so that their figures are slightly too good; never quote "
    "them as those of another set, nor a figure of a set that holds training images.",
    "- For demonstrations: this is no safety system.",
)
"""Of all weights that are made here."""


@dataclass(frozen=True)
class Subject:
    """What a card is about.

    Attributes:
        labels: Class names, the background first.
        backbone: A key of :data:`ssd_triton.detector.network.resnet.BACKBONES`.
        begin: What the training began with, in words.
        training: What it was trained on.
        validation: What it was validated on.
        device: Where.
        notes: Lines about the data: licences, sources, bias.
    """

    labels: Sequence[str]
    backbone: str
    begin: str
    training: Sequence[Examples]
    validation: Sequence[ValidationSet]
    device: torch.device
    notes: Sequence[str]


def write_card(weights_path: Path, subject: Subject, settings: TrainingConfig, record: Record, best: Best) -> None:
    """Write ``MODEL_CARD.md`` beside weights that exist.

    Args:
        weights_path: The weights.
        subject: What they are.
        settings: The recipe.
        record: How the training went until these weights.
        best: Which ones they are, and their figures.
    """
    sections = [
        head(weights_path, subject.backbone, len(subject.labels), "tools/train.py"),
        _data(subject),
        *(accuracy(one, found) for one, found in zip(subject.validation, best.metrics, strict=True)),
        _training(subject, settings, record),
        _limits(subject, best.metrics),
    ]
    with atomic_output(weights_path.with_name(CARD)) as temporary:
        temporary.write_text("\n\n".join(sections) + "\n", encoding="utf-8")


def head(weights_path: Path, backbone: str, num_labels: int, tool: str) -> str:
    """A card's title, and which file it is about."""
    return "\n".join(
        [
            f"# SSD300, {backbone}, {num_labels} labels with the background",
            "",
            "| | |",
            "|---|---|",
            f"| file | `{weights_path.name}`, FP16 safetensors, parameter names of NVIDIA's published checkpoint |",
            f"| SHA-256 | `{sha256_of(weights_path)}` |",
            f"| made | {datetime.now(timezone.utc).date().isoformat()} by `{tool}` |",
        ]
    )


def _data(subject: Subject) -> str:
    lines = [
        "**Data.** Images squashed to a square, in the sets below; none of the training images is a validation image, "
        "by name and content.",
        "",
        "| set | use | images | boxes | part of the draws | annotations SHA-256 |",
        "|---|---|---|---|---|---|",
    ]
    shares = [len(one) if one.source.weight is None else one.source.weight for one in subject.training]
    for one, share in zip(subject.training, shares, strict=True):
        boxes = sum(one.counts(len(subject.labels)))
        use = "training on what the checkpoint sees in them" if one.source.taught else "training"
        lines.append(
            f"| {one.source.annotations.name} | {use} | {len(one):,} | {boxes:,} | {share / sum(shares):.0%} | "
            f"`{one.annotations_sha256[:16]}` |"
        )
    for chosen_by in subject.validation:
        boxes = sum(not box.iscrowd for box in chosen_by.dataset.annotations)
        path = chosen_by.source.annotations
        lines.append(
            f"| {path.name} | validation | {len(chosen_by.file_names):,} | {boxes:,} | | `{sha256_of(path)[:16]}` |"
        )
    counts = [
        sum(column) for column in zip(*(one.counts(len(subject.labels)) for one in subject.training), strict=True)
    ]
    most = sorted(zip(counts, subject.labels, strict=True), reverse=True)
    named = ", ".join(f"{name} {count:,}" for count, name in most[:10] if count)
    lines += ["", f"Boxes to train on, most frequent classes: {named}."]
    lines += [_problems(one) for one in subject.training if _problems(one)]
    lines += ["", *subject.notes] if subject.notes else []
    return "\n".join(lines)


def _problems(examples: Examples) -> str:
    problems = examples.problems
    counts = {
        "boxes cut at the image's border": problems.clipped,
        "boxes without size dropped": problems.dropped,
        "boxes of other categories left out": problems.left_out,
        "images left out as missing or damaged": len(problems.bad_images),
    }
    found = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
    return f"{examples.source.annotations.name}: {found}." if found else ""


def accuracy(one: ValidationSet, metrics: Metrics) -> str:
    """A card's figures on a set that chose the weights."""
    figures = metrics.figures
    lines = [
        f"**Accuracy** on the {len(one.file_names):,} images of {one.source.annotations.name}, which chose the "
        "weights too; FP32, protocol of NVIDIA DeepLearningExamples, COCO figures.",
        "",
        "| | AP | AP50 |",
        "|---|---|---|",
        f"| all classes | {_figure(figures['AP'])} | {_figure(figures['AP50'])} |",
        f"| large / medium / small | {_figure(figures['AP_large'])} / {_figure(figures['AP_medium'])} / "
        f"{_figure(figures['AP_small'])} | |",
    ]
    listed = [found for found in metrics.classes if found.objects >= _FEWEST_LISTED]
    lines += [
        f"| {found.name} ({found.objects:,} boxes) | {_figure(found.ap)} | {_figure(found.ap50)} |"
        for found in sorted(listed, key=lambda found: -found.objects)
    ]
    return "\n".join(lines)


def _figure(value: float | None) -> str:
    return "none there" if value is None else f"{value:.3f}"


def _training(subject: Subject, settings: TrainingConfig, record: Record) -> str:
    is_cuda = subject.device.type == "cuda"
    device = torch.cuda.get_device_name(subject.device) if is_cuda else f"{platform.machine()} processor"
    images = sum(len(one) for one in subject.training)
    speeds = sorted(row.images_per_s for row in record.log)
    speed = f", {speeds[len(speeds) // 2]:,.0f} images/s" if speeds else ""
    recipe = settings.model_dump_json(exclude={"output", "log_every", "validate_every"})
    return "\n".join(
        [
            f"**Training.** {device}, PyTorch {torch.__version__}, Python {platform.python_version()}, "
            f"{'bf16 autocast' if is_cuda else 'FP32'}{speed}. Began with {subject.begin}. The snapshot is the "
            f"running average of the weights at step {record.best_step:,} of {settings.steps:,} (batch "
            f"{settings.batch}, {record.best_step * settings.batch / images:.1f} epochs, {record.seconds:,.0f} s).",
            "",
            f"Recipe (`training` in config.yml): `{recipe}`",
        ]
    )


def _limits(subject: Subject, metrics: Sequence[Metrics]) -> str:
    lines = ["**Bias and limits.**"]
    counts = [
        sum(column) for column in zip(*(one.counts(len(subject.labels)) for one in subject.training), strict=True)
    ]
    total = max(sum(counts), 1)
    top = max(range(len(counts)), key=counts.__getitem__)
    lines.append(f"- {counts[top] / total:.0%} of the boxes are of one class, {subject.labels[top]}.")
    never = [name for name, count in zip(subject.labels[1:], counts[1:], strict=True) if not count]
    if never:
        lines.append(f"- Never seen in training: {', '.join(never)}.")
    small = [found.figures["AP_small"] for found in metrics]
    if any(value is not None for value in small):
        lines.append(f"- Small objects (below 32² pixels): AP {', '.join(_figure(value) for value in small)}.")
    return "\n".join([*lines, *COMMON_LIMITS])
