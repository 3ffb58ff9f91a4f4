"""A whole training: from data sets and initial weights to trained weights, their card and a record."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ssd_triton.common.files import atomic_output, relative_to_cwd, sha256_of
from ssd_triton.config import TrainingConfig
from ssd_triton.detector.network.ssd import SSD300
from ssd_triton.detector.weights.file import WeightsFile
from ssd_triton.evaluation import metrics as coco_metrics
from ssd_triton.training.augmentation import Sources
from ssd_triton.training.class_map import ClassMap
from ssd_triton.training.errors import TrainingError
from ssd_triton.training.examples import PADDING, Examples, Source, load_examples, report_problems
from ssd_triton.training.fp16_range import rescale_for_fp16
from ssd_triton.training.history import Record
from ssd_triton.training.initial_network import InitialWeights, load_backbone, load_checkpoint, new_network
from ssd_triton.training.model_card import CARD, Subject, write_card
from ssd_triton.training.out_of_memory import images_too_large
from ssd_triton.training.preview import write_preview
from ssd_triton.training.sampling import draw_weights
from ssd_triton.training.trainer import SNAPSHOT, Best, Trainer
from ssd_triton.training.validation import ValidationSet, load_validation, open_validator, refuse_overlap

WEIGHTS = "weights.safetensors"


@dataclass(frozen=True)
class TrainingRequest:
    """Data, classes and initial weights of a training.

    Attributes:
        training: Sets to train on.
        validation: Sets that are used to choose the best snapshot; without any, the last one is kept.
        classes: Classes to train.
        initial: Weights to start with.
        skip_bad: Leave out missing and damaged images.
        notes: Lines for the model card.
    """

    training: Sequence[Source]
    validation: Sequence[Source]
    classes: ClassMap
    initial: InitialWeights
    skip_bad: bool = False
    notes: Sequence[str] = ()


def train(
    request: TrainingRequest,
    settings: TrainingConfig,
    device: torch.device,
    *,
    resume: bool = False,
    stop_after: int | None = None,
) -> Record:
    """Train, and write everything into ``settings.output``.

    The folder gets ``weights.safetensors`` and ``MODEL_CARD.md`` of the best snapshot, ``labels.txt``, ``log.csv``,
    ``validations.csv``, ``curves.png``, ``augmented.png``, and ``last.pt``, from which a training can resume.

    Args:
        request: Data, classes and initial weights.
        settings: The recipe.
        device: The device to train on.
        resume: Resume from the last snapshot in the folder.
        stop_after: Step after which to stop early, with a snapshot.

    Raises:
        UserError: Data, weights, settings or memory do not allow it; the message says what to do.
    """
    output: Path = settings.output
    if request.validation:
        coco_metrics.check_installed()
    if not resume and (output / SNAPSHOT).exists():
        raise TrainingError(
            f"{relative_to_cwd(output)} holds a training already; continue it with --resume, or give another --output"
        )
    network = _initial_network(request, settings.seed)
    training, validation = _load(request, settings, device)
    labels, initial = request.classes.labels, request.initial
    sources = _join(training, labels, settings, device)
    subject = Subject(labels, initial.backbone, initial.describe(), training, validation, device, request.notes)
    with open_validator(validation) as validator:
        trainer = Trainer(network, sources, validator, settings, _fingerprint(request, training, settings, device))
        if resume:
            trainer.resume()
        write_preview(output / "augmented.png", sources, settings, labels)
        with atomic_output(output / "labels.txt") as temporary:
            temporary.write_text("\n".join(labels) + "\n", encoding="utf-8")
        trainer.train(partial(_publish, subject, settings), stop_after=stop_after)
    return trainer.record


def _initial_network(request: TrainingRequest, seed: int) -> SSD300:
    initial = request.initial
    if initial.backbone_weights is not None and initial.checkpoint is not None:
        raise TrainingError("got --backbone-weights and --checkpoint, expected one of them")
    if initial.new_heads and initial.checkpoint is None:
        raise TrainingError(
            "got --new-heads without --checkpoint: heads are new anyway; give the checkpoint, or drop it"
        )
    if any(one.taught for one in request.training) and (initial.checkpoint is None or initial.new_heads):
        given = "without --checkpoint" if initial.checkpoint is None else "with --new-heads"
        raise TrainingError(
            f"got --taught-data {given}, expected a checkpoint that can teach with its own heads; use --data instead"
        )
    network = new_network(initial.backbone, len(request.classes.labels), seed)
    if initial.backbone_weights is not None:
        load_backbone(network, initial.backbone_weights)
    if initial.checkpoint is not None:
        load_checkpoint(network, initial.checkpoint, new_heads=initial.new_heads)
    return network


def _load(
    request: TrainingRequest, settings: TrainingConfig, device: torch.device
) -> tuple[list[Examples], list[ValidationSet]]:
    """Read all sets, report their problems, and refuse images that are in both training and validation sets."""
    classes, skip_bad = request.classes, request.skip_bad
    training = [load_examples(one, classes, settings.source_px, skip_bad=skip_bad) for one in request.training]
    validation = [load_validation(one, classes, device, skip_bad=skip_bad) for one in request.validation]
    for examples in training:
        report_problems(examples)
    for one in validation:
        refuse_overlap(training, one)
    return training, validation


def _join(
    training: Sequence[Examples], labels: Sequence[str], settings: TrainingConfig, device: torch.device
) -> Sources:
    """Join all sets, on the device."""
    often = {list(labels).index(name): factor for name, factor in settings.sampling.often.items() if name in labels[1:]}
    rows = max(examples.labels.shape[1] for examples in training)
    boxes = [F.pad(one.boxes_xyxy, (0, 0, 0, rows - one.labels.shape[1])) for one in training]
    classes = [F.pad(one.labels, (0, rows - one.labels.shape[1]), value=PADDING) for one in training]
    weights = draw_weights(training, len(labels), often, settings.sampling.rare_frequency)
    pixels = _join_pixels([examples.pixels for examples in training], device)
    taught = torch.cat([torch.full((len(examples),), examples.source.taught) for examples in training])
    return Sources(
        pixels, torch.cat(boxes).to(device), torch.cat(classes).to(device), weights.to(device), taught.to(device)
    )


def _join_pixels(sets: Sequence[Tensor], device: torch.device) -> Tensor:
    """Join all images, UINT8 [M, 3, S, S], on the device; with a GPU, the machine's memory never holds them twice."""
    counts = [len(one) for one in sets]
    try:
        joined = torch.empty((sum(counts), *sets[0].shape[1:]), dtype=torch.uint8, device=device)
    except torch.cuda.OutOfMemoryError:
        raise images_too_large(sum(one.nbytes for one in sets), device) from None
    for part, one in zip(torch.split(joined, counts), sets, strict=True):
        part.copy_(one)
    return joined


def _fingerprint(
    request: TrainingRequest, training: Sequence[Examples], settings: TrainingConfig, device: torch.device
) -> dict[str, str]:
    """Everything that the weights depend on: a training resumes only if all of it is the same."""

    def digest(*parts: object) -> str:
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]

    initial = request.initial
    weights = initial.checkpoint or initial.backbone_weights
    # Logging does not affect training; the interval of validations only affects which weights are kept.
    recipe = settings.model_dump(mode="json", exclude={"output", "log_every", "validate_every"})
    return {
        **{f"training.{key}": json.dumps(value) for key, value in recipe.items()},
        "labels": digest(*request.classes.labels),
        "backbone": initial.backbone,
        "weights": "random" if weights is None else sha256_of(weights)[:16],
        "new_heads": str(initial.new_heads),
        "data": digest(
            *((one.source.weight, one.source.taught, one.annotations_sha256, one.content_sha256) for one in training)
        ),
        "device": device.type,
    }


def _publish(subject: Subject, settings: TrainingConfig, best: Best, record: Record) -> None:
    """Write the best weights so far, in FP16, and their model card."""
    path = settings.output / WEIGHTS
    published = copy.deepcopy(best.network).cpu()
    rescale_for_fp16(published)
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
