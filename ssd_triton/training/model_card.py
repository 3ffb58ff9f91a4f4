"""The model card of trained weights: data, accuracy, training, bias and limits."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import torch

from ssd_triton.common.files import sha256_of
from ssd_triton.common.report import Block, Bullets, Heading, ReportFolder, Table, markdown
from ssd_triton.config import TrainingConfig
from ssd_triton.evaluation.metrics import Metrics
from ssd_triton.training.examples import Examples
from ssd_triton.training.history import Record
from ssd_triton.training.trainer import Best
from ssd_triton.training.validation import ValidationSet

CARD = "MODEL_CARD.md"
_FEWEST_LISTED = 20
"""Classes with fewer validation boxes are not listed: their figures would be mostly chance."""
COMMON_LIMITS = (
    "The weights were chosen on the validation sets above, so that their figures are slightly too good; never quote "
    "them as those of another set, nor a figure of a set that holds training images.",
    "For demonstrations: this is no safety system.",
)
"""Limits that apply to all weights from this project's training."""


@dataclass(frozen=True)
class Subject:
    """Trained weights, as their card describes them.

    Attributes:
        labels: Class names, the background first.
        backbone: A key of :data:`ssd_triton.detector.network.resnet.BACKBONES`.
        begin: Description of the initial weights.
        training: Training sets.
        validation: Validation sets.
        device: Device of the training.
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
    """Write ``MODEL_CARD.md`` beside existing weights.

    Args:
        weights_path: The weights.
        subject: What the card describes.
        settings: The recipe.
        record: History of the training up to these weights.
        best: The snapshot and its figures.
    """
    text = markdown(
        *head(weights_path, subject.backbone, len(subject.labels), "ssd-triton train"),
        *_data(subject),
        *(block for one, found in zip(subject.validation, best.metrics, strict=True) for block in accuracy(one, found)),
        *_training(subject, settings, record),
        *_limits(subject, best.metrics),
    )
    ReportFolder(weights_path.parent).text(CARD, text)


def head(weights_path: Path, backbone: str, num_labels: int, tool: str) -> list[Block]:
    """Title of a card, and the file that it describes."""
    facts = [
        ["file", f"`{weights_path.name}`, FP16 safetensors, parameter names of NVIDIA's published checkpoint"],
        ["SHA-256", f"`{sha256_of(weights_path)}`"],
        ["made", f"{datetime.now(timezone.utc).date().isoformat()} by `{tool}`"],
    ]
    return [Heading(f"SSD300, {backbone}, {num_labels} labels with the background", 1), Table(["", ""], facts)]


def _data(subject: Subject) -> list[Block]:
    shares = [len(one) if one.source.weight is None else one.source.weight for one in subject.training]
    rows = []
    for one, share in zip(subject.training, shares, strict=True):
        use = "training on what the checkpoint sees in them" if one.source.taught else "training"
        boxes, part = f"{sum(one.counts(len(subject.labels))):,}", f"{share / sum(shares):.0%}"
        digest = f"`{one.annotations_sha256[:16]}`"
        rows.append([_name(one.source.annotations), use, f"{len(one):,}", boxes, part, digest])
    for chosen_by in subject.validation:
        boxes = f"{sum(not box.iscrowd for box in chosen_by.dataset.annotations):,}"
        path, images = chosen_by.source.annotations, f"{len(chosen_by.file_names):,}"
        rows.append([_name(path), "validation", images, boxes, "", f"`{sha256_of(path)[:16]}`"])
    most = sorted(zip(_counts(subject), subject.labels, strict=True), reverse=True)
    named = ", ".join(f"{name} {count:,}" for count, name in most[:10] if count)
    problems = [_problems(one) for one in subject.training]
    return [
        "**Data.** Images squashed to a square, in the sets below; none of the training images is a validation image, "
        "by name and content.",
        Table(["set", "use", "images", "boxes", "part of the draws", "annotations SHA-256"], rows),
        "\n".join(filter(None, [f"Boxes to train on, most frequent classes: {named}.", *problems])),
        "\n".join(subject.notes),
    ]


def _counts(subject: Subject) -> list[int]:
    """Boxes to train on, by class id."""
    return [sum(column) for column in zip(*(one.counts(len(subject.labels)) for one in subject.training), strict=True)]


def _problems(examples: Examples) -> str:
    problems = examples.problems
    counts = {
        "boxes cut at the image's border": problems.clipped,
        "boxes without size dropped": problems.dropped,
        "boxes of other categories left out": problems.left_out,
        "images left out as missing or damaged": len(problems.bad_images),
    }
    found = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
    return f"{_name(examples.source.annotations)}: {found}." if found else ""


def accuracy(one: ValidationSet, metrics: Metrics) -> list[Block]:
    """Section of a card with the figures on a validation set."""
    figures = metrics.figures
    sizes = " / ".join(_figure(figures[name]) for name in ("AP_large", "AP_medium", "AP_small"))
    listed = sorted(
        (found for found in metrics.classes if found.objects >= _FEWEST_LISTED), key=lambda one: -one.objects
    )
    rows = [
        ["all classes", _figure(figures["AP"]), _figure(figures["AP50"])],
        ["large / medium / small", sizes, ""],
        *([f"{found.name} ({found.objects:,} boxes)", _figure(found.ap), _figure(found.ap50)] for found in listed),
    ]
    return [
        f"**Accuracy** on the {len(one.file_names):,} images of {_name(one.source.annotations)}, which chose the "
        "weights too; FP32, protocol of NVIDIA DeepLearningExamples, COCO figures.",
        Table(["", "AP", "AP50"], rows),
    ]


def _name(annotations: Path) -> str:
    """A set's file with its folder, since many sets have a file ``annotations.json``."""
    return "/".join(annotations.parts[-2:])


def _figure(value: float | None) -> str:
    return "none there" if value is None else f"{value:.3f}"


def _training(subject: Subject, settings: TrainingConfig, record: Record) -> list[Block]:
    is_cuda = subject.device.type == "cuda"
    device = torch.cuda.get_device_name(subject.device) if is_cuda else f"{platform.machine()} processor"
    images = sum(len(one) for one in subject.training)
    speeds = sorted(row.images_per_s for row in record.log)
    speed = f", {speeds[len(speeds) // 2]:,.0f} images/s" if speeds else ""
    recipe = settings.model_dump_json(exclude={"output", "log_every", "validate_every"})
    return [
        f"**Training.** {device}, PyTorch {torch.__version__}, Python {platform.python_version()}, "
        f"{'bf16 autocast' if is_cuda else 'FP32'}{speed}. Began with {subject.begin}. The snapshot is the "
        f"running average of the weights at step {record.best_step:,} of {settings.steps:,} (batch "
        f"{settings.batch}, {record.best_step * settings.batch / images:.1f} epochs, {record.seconds:,.0f} s).",
        f"Recipe (`training` in config.yml): `{recipe}`",
    ]


def _limits(subject: Subject, metrics: Sequence[Metrics]) -> list[Block]:
    counts = _counts(subject)
    top = max(range(len(counts)), key=counts.__getitem__)
    lines = [f"{counts[top] / max(sum(counts), 1):.0%} of the boxes are of one class, {subject.labels[top]}."]
    never = [name for name, count in zip(subject.labels[1:], counts[1:], strict=True) if not count]
    if never:
        lines.append(f"Never seen in training: {', '.join(never)}.")
    small = [found.figures["AP_small"] for found in metrics]
    if any(value is not None for value in small):
        lines.append(f"Small objects (below 32² pixels): AP {', '.join(_figure(value) for value in small)}.")
    return ["**Bias and limits.**", Bullets([*lines, *COMMON_LIMITS])]
