"""Averages of the weights of two networks with a common origin: they combine the skills of both without training.

Source: Wortsman et al., "Robust fine-tuning of zero-shot models" (2022): the average of a network before and after
fine-tuning often keeps nearly all skills of both. Only networks with a common origin lie in the same valley of the
loss; averages of others are useless.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from ssd_triton.common.files import relative_to_cwd
from ssd_triton.detector.network.ssd import SSD300
from ssd_triton.detector.weights.file import WeightsFile
from ssd_triton.evaluation.metrics import check_installed
from ssd_triton.simulation.judging.visibility import Criteria
from ssd_triton.training.candidates import Candidate, Judge, choose
from ssd_triton.training.class_map import ClassMap
from ssd_triton.training.errors import TrainingError
from ssd_triton.training.examples import Source
from ssd_triton.training.fp16_range import match_scales, rescale_for_fp16
from ssd_triton.training.interpolation_report import Interpolation, write_card, write_report
from ssd_triton.training.model_card import CARD
from ssd_triton.training.train import WEIGHTS
from ssd_triton.training.validation import load_validation, open_validator

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Mixture:
    """Weights to average, and how to judge the averages.

    Attributes:
        first: A checkpoint whose accuracy on photographs must be preserved.
        second: Weights that were fine-tuned from the first.
        shares: Shares of the second network, above 0 and below 1; 0 and 1 are always evaluated.
        others: Weights to evaluate, but not to average.
        validation: Validation sets; on sets of ``ssd-triton render-dataset``, detected road users are counted too.
        classes: Classes of the networks.
        backbone: A key of :data:`ssd_triton.detector.network.resnet.BACKBONES`.
        criteria: Criteria for rendered sets.
        max_loss: AP that the choice may lose against the first weights on photographs.
        chosen_share: Share to publish; None to choose by the figures.
        shifts: Logits to add in every average, by class id (see :func:`shift_classes`).
    """

    first: Path
    second: Path
    shares: Sequence[float]
    others: Sequence[Path]
    validation: Sequence[Source]
    classes: ClassMap
    backbone: str
    criteria: Criteria
    max_loss: float
    chosen_share: float | None = None
    shifts: Mapping[int, float] = field(default_factory=dict)


def interpolated(first: SSD300, second: SSD300, share: float) -> SSD300:
    """Average two networks in FP32, including the statistics of batch norms.

    Args:
        first: Has the share 1 - ``share``.
        second: Has the share ``share``; its channels have the same scales (see :func:`match_scales`).
        share: In [0, 1].
    """
    mixed = copy.deepcopy(first)
    others = second.state_dict()
    with torch.no_grad():
        for name, value in mixed.state_dict().items():
            if value.is_floating_point():
                value.lerp_(others[name], share)
            else:
                value.copy_(others[name])
    return mixed


def shift_classes(network: SSD300, shifts: Mapping[int, float]) -> None:
    """Make some classes more or less likely: like individual thresholds, but inside the weights.

    Classes can be more frequent in the training data than in use, or less. A constant added to their logits is the
    usual correction (Menon et al., "Long-tail learning via logit adjustment", 2021). It keeps the order of a class's
    detections, and so nearly all of its AP.

    Args:
        network: Changed in place.
        shifts: Logits to add, by class id.
    """
    with torch.no_grad():
        for head in network.conf:
            by_class = head.get_parameter("bias").view(network.num_labels, -1)
            for class_id, logit in shifts.items():
                by_class[class_id] += logit


def interpolate(mixture: Mixture, output: Path, device: torch.device) -> Interpolation:
    """Evaluate averages of two networks, and publish the best one that loses at most ``max_loss`` on photographs.

    The folder gets ``weights.safetensors``, ``MODEL_CARD.md``, ``interpolation.md``, ``.json`` and ``.png``.

    Raises:
        UserError: Weights or data do not fit; the message says what to do.
    """
    check_installed()
    if not mixture.validation:
        raise TrainingError("got nothing to choose by: give --validation IMAGES ANNOTATIONS")
    labels = mixture.classes.labels
    first, second, *others = (
        WeightsFile(path).load_network(mixture.backbone, len(labels))
        for path in (mixture.first, mixture.second, *mixture.others)
    )
    rescaled = match_scales(first, second)
    if rescaled:
        _log.info("rescaled %d channels of %s to match those of the second network", rescaled, mixture.first.name)
    sets = [load_validation(one, mixture.classes, device, skip_bad=False) for one in mixture.validation]
    shares = sorted({0.0, *mixture.shares, mixture.chosen_share or 0.0, 1.0})
    with open_validator(sets) as validator:
        judge = Judge(validator, labels, mixture.criteria)
        mixtures = []
        for share in shares:
            network = _mixed(first, second, share, mixture.shifts).to(device)
            mixtures.append(judge.evaluate(f"share {share:g}", share, network))
            _log.info("share %g: score %.4f", share, mixtures[-1].score)
        compared = [
            judge.evaluate(relative_to_cwd(path), None, one.to(device))
            for path, one in zip(mixture.others, others, strict=True)
        ]
    chosen = _chosen(mixture, mixtures)
    interpolation = Interpolation(
        (mixture.first, mixture.second),
        mixture.backbone,
        labels,
        judge,
        mixture.max_loss,
        (*mixtures, *compared),
        chosen,
        {labels[class_id]: logit for class_id, logit in mixture.shifts.items()},
    )
    _publish(_mixed(first, second, chosen.share or 0.0, mixture.shifts), interpolation, output)
    return interpolation


def _mixed(first: SSD300, second: SSD300, share: float, shifts: Mapping[int, float]) -> SSD300:
    network = interpolated(first, second, share)
    # A share of 0 is the unchanged first network, for comparison.
    if share > 0:
        shift_classes(network, shifts)
    return network


def _publish(network: SSD300, interpolation: Interpolation, output: Path) -> None:
    rescale_for_fp16(network)
    weights = output / WEIGHTS
    about = {"num_labels": str(len(interpolation.labels)), "backbone": interpolation.backbone, "dataset": f"see {CARD}"}
    WeightsFile(weights).save_fp16(network, about)
    write_card(weights, interpolation)
    write_report(output, interpolation)


def _chosen(mixture: Mixture, mixtures: Sequence[Candidate]) -> Candidate:
    if mixture.chosen_share is None:
        return choose(mixtures, mixture.max_loss)
    return next(one for one in mixtures if one.share == mixture.chosen_share)
