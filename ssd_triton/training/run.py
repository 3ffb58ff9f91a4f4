"""A whole training: from data sets and weights to begin with, to weights, their card and the record of how it went."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F

from ssd_triton.common.files import atomic_output, relative_to_cwd, sha256_of
from ssd_triton.config import TrainingConfig
from ssd_triton.detector.network.ssd import SSD300
from ssd_triton.detector.weights.file import WeightsFile
from ssd_triton.evaluation import metrics as coco_metrics
from ssd_triton.evaluation.annotations import Category
from ssd_triton.training.augmentation import Sources
from ssd_triton.training.classes import class_of_category
from ssd_triton.training.errors import TrainingError
from ssd_triton.training.examples import (
    PADDING,
    Examples,
    Source,
    draw_weights,
    load_examples,
    refuse_overlap,
    report_problems,
)
from ssd_triton.training.half_safe import make_half_safe
from ssd_triton.training.history import Record
from ssd_triton.training.initial_network import load_backbone, load_checkpoint, new_network
from ssd_triton.training.memory import images_too_many
from ssd_triton.training.model_card import CARD, Subject, write_card
from ssd_triton.training.preview import write_preview
from ssd_triton.training.trainer import SNAPSHOT, Best, Trainer
from ssd_triton.training.validation import ValidationSet, Validator, load_validation

WEIGHTS = "weights.safetensors"


@dataclass(frozen=True)
class Begin:
    """What a training begins with.

    Attributes:
        backbone: A key of :data:`ssd_triton.detector.network.resnet.BACKBONES`.
        backbone_weights: ImageNet weights of it, or None.
        checkpoint: A whole network to fine-tune, or None; only one of both may be given.
        new_heads: Begin the class heads of the checkpoint anew.
    """

    backbone: str
    backbone_weights: Path | None = None
    checkpoint: Path | None = None
    new_heads: bool = False


@dataclass(frozen=True)
class Request:
    """What to train on what.

    Attributes:
        training: Sets to train on.
        validation: Sets that choose the best snapshot; without any, the last one is kept.
        labels: Names of the classes to train, the background first.
        known: Names that may occur in the data and are not trained.
        name_map: Names of the data that are called otherwise in ``labels``; an empty one leaves a category out.
        begin: Weights to begin with.
        skip_bad: Leave out images that are missing or damaged.
        notes: Lines for the model card.
    """

    training: Sequence[Source]
    validation: Sequence[Source]
    labels: Sequence[str]
    known: Sequence[str]
    name_map: Mapping[str, str]
    begin: Begin
    skip_bad: bool = False
    notes: Sequence[str] = ()


def train(
    request: Request,
    settings: TrainingConfig,
    device: torch.device,
    *,
    resume: bool = False,
    stop_after: int | None = None,
) -> Record:
    """Train, and write everything into ``settings.output``.

    The folder gets ``weights.safetensors`` and ``MODEL_CARD.md`` of the best snapshot, ``labels.txt``, ``log.csv``,
    ``validations.csv``, ``curves.png``, ``augmented.png``, and ``last.pt``, from which a training is resumed.

    Args:
        request: What to train.
        settings: How.
        device: Where.
        resume: Go on from the last snapshot in the folder.
        stop_after: Stop after this step, with a snapshot.

    Raises:
        UserError: Data, weights, settings or memory do not allow it; the message says what to do.
    """
    output: Path = settings.output
    if request.validation:
        coco_metrics.check_installed()
    if not resume and (output / SNAPSHOT).exists():
        raise TrainingError(
            f"{relative_to_cwd(output)} holds a training already: go on with --resume, or give another --output"
        )
    network = _begin(request, settings.seed)
    training, validation = _load(request, settings, device)
    sources = _join(training, request.labels, settings, device)
    subject = Subject(
        request.labels,
        request.begin.backbone,
        _describe(request.begin),
        training,
        validation,
        device,
        request.notes,
    )
    with Validator(validation) as validator:
        trainer = Trainer(network, sources, validator, settings, _fingerprint(request, training, settings, device))
        if resume:
            trainer.resume()
        write_preview(output / "augmented.png", sources, settings, request.labels)
        _write_labels(output / "labels.txt", request.labels)
        trainer.train(partial(_publish, subject, settings), stop_after=stop_after)
    return trainer.record


def _begin(request: Request, seed: int) -> SSD300:
    begin = request.begin
    if begin.backbone_weights is not None and begin.checkpoint is not None:
        raise TrainingError("got --backbone-weights and --checkpoint, expected one of them")
    if begin.new_heads and begin.checkpoint is None:
        raise TrainingError(
            "got --new-heads without --checkpoint: heads are new anyway; give the checkpoint, or drop it"
        )
    if any(one.taught for one in request.training) and (begin.checkpoint is None or begin.new_heads):
        given = "without --checkpoint" if begin.checkpoint is None else "with --new-heads"
        raise TrainingError(
            f"got --taught-data {given}, expected a checkpoint that can teach with its own heads; use --data instead"
        )
    network = new_network(begin.backbone, len(request.labels), seed)
    if begin.backbone_weights is not None:
        load_backbone(network, begin.backbone_weights)
    if begin.checkpoint is not None:
        load_checkpoint(network, begin.checkpoint, new_heads=begin.new_heads)
    return network


def _load(
    request: Request, settings: TrainingConfig, device: torch.device
) -> tuple[list[Examples], list[ValidationSet]]:
    """All images, whose problems are reported; sets to validate on that share images with the others are refused."""

    def class_map(categories: Sequence[Category], source: str) -> Mapping[int, int]:
        return class_of_category(categories, request.labels, request.known, request.name_map, source)

    training = [
        load_examples(source, class_map, settings.source_px, skip_bad=request.skip_bad) for source in request.training
    ]
    validation = [
        load_validation(source, class_map, request.labels, device, skip_bad=request.skip_bad)
        for source in request.validation
    ]
    for examples in training:
        report_problems(examples)
    for one in validation:
        refuse_overlap(training, one.file_names, one.content_sha256)
    return training, validation


def _describe(begin: Begin) -> str:
    if begin.checkpoint is not None:
        heads = ", its class heads anew" if begin.new_heads else ""
        return f"the checkpoint `{begin.checkpoint.name}` (SHA-256 `{sha256_of(begin.checkpoint)[:16]}`){heads}"
    if begin.backbone_weights is not None:
        path = begin.backbone_weights
        return f"the ImageNet backbone `{path.name}` (SHA-256 `{sha256_of(path)[:16]}`) and random new layers"
    return "random weights"


def _join(
    training: Sequence[Examples], labels: Sequence[str], settings: TrainingConfig, device: torch.device
) -> Sources:
    """All sets in one, on the device."""
    often = {list(labels).index(name): factor for name, factor in settings.sampling.often.items() if name in labels[1:]}
    rows = max(examples.labels.shape[1] for examples in training)
    boxes = [F.pad(one.boxes_xyxy, (0, 0, 0, rows - one.labels.shape[1])) for one in training]
    classes = [F.pad(one.labels, (0, rows - one.labels.shape[1]), value=PADDING) for one in training]
    weights = draw_weights(training, len(labels), often, settings.sampling.rare_frequency)
    pixels = torch.cat([examples.pixels for examples in training])
    try:
        on_device = pixels.to(device)
    except torch.cuda.OutOfMemoryError:
        raise images_too_many(pixels.nbytes, device) from None
    taught = torch.cat([torch.full((len(examples),), examples.source.taught) for examples in training])
    return Sources(
        on_device, torch.cat(boxes).to(device), torch.cat(classes).to(device), weights.to(device), taught.to(device)
    )


def _fingerprint(
    request: Request, training: Sequence[Examples], settings: TrainingConfig, device: torch.device
) -> dict[str, str]:
    """What the weights depend on: a training is resumed with the same only."""

    def digest(*parts: object) -> str:
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]

    begin = request.begin
    weights = begin.checkpoint or begin.backbone_weights
    # How often to log changes nothing; how often to validate chooses only which weights are kept.
    recipe = settings.model_dump(mode="json", exclude={"output", "log_every", "validate_every"})
    return {
        **{f"training.{key}": json.dumps(value) for key, value in recipe.items()},
        "labels": digest(*request.labels),
        "backbone": begin.backbone,
        "weights": "random" if weights is None else sha256_of(weights)[:16],
        "new_heads": str(begin.new_heads),
        "data": digest(
            *((one.source.weight, one.source.taught, one.annotations_sha256, one.content_sha256) for one in training)
        ),
        "device": device.type,
    }


def _write_labels(path: Path, labels: Sequence[str]) -> None:
    with atomic_output(path) as temporary:
        temporary.write_text("\n".join(labels) + "\n", encoding="utf-8")


def _publish(subject: Subject, settings: TrainingConfig, best: Best, record: Record) -> None:
    """Write the best weights so far, in FP16, and their card."""
    path = settings.output / WEIGHTS
    published = copy.deepcopy(best.network).cpu()
    make_half_safe(published)
    WeightsFile(path).save_fp16(
        published,
        {
            "num_labels": str(len(subject.labels)),
            "backbone": subject.backbone,
            "dataset": f"{', '.join(one.source.annotations.name for one in subject.training)}; see {CARD}",
            "step": str(best.step),
        },
    )
    write_card(path, subject, settings, record, best)
