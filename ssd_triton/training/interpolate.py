"""Weights between two networks of one origin: some of what each has learnt, without training.

Source: Wortsman et al., "Robust fine-tuning of zero-shot models" (2022): a network that was fine-tuned on new data,
averaged with the one that it began with, often keeps nearly all that both can. Only networks of one origin lie in one
valley of the loss: averages of others are of no use.
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
from ssd_triton.evaluation.annotations import Category
from ssd_triton.evaluation.metrics import check_installed
from ssd_triton.simulation.judging.visibility import Criteria
from ssd_triton.training.candidates import Candidate, Judge, choose
from ssd_triton.training.classes import class_of_category
from ssd_triton.training.errors import TrainingError
from ssd_triton.training.examples import ClassMap, Source
from ssd_triton.training.half_safe import make_half_safe, match_scales
from ssd_triton.training.interpolation_report import Interpolation, write_card, write_report
from ssd_triton.training.model_card import CARD
from ssd_triton.training.run import WEIGHTS
from ssd_triton.training.validation import Validator, load_validation

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Mixture:
    """What to average, and what to judge it by.

    Attributes:
        first: Weights whose accuracy on photographs is to be kept: a checkpoint.
        second: Weights that were fine-tuned from it.
        shares: Of the second network, above 0 and below 1; 0 and 1 are evaluated too.
        others: Further weights, evaluated and not averaged.
        validation: Sets; those of ``tools/render_dataset.py`` tell what is seen of rendered traffic too.
        labels: Class names by id, the background first.
        name_map: Names of the data that are called otherwise in ``labels``; an empty one leaves a category out.
        backbone: A key of :data:`ssd_triton.detector.network.resnet.BACKBONES`.
        criteria: What counts on rendered sets.
        max_loss: AP that the choice may lose against the first weights on photographs.
        chosen_share: Publish this one; None chooses by the figures.
        shifts: Added to logits of these classes, by id, in every average (see :func:`shift_classes`).
    """

    first: Path
    second: Path
    shares: Sequence[float]
    others: Sequence[Path]
    validation: Sequence[Source]
    labels: Sequence[str]
    name_map: Mapping[str, str]
    backbone: str
    criteria: Criteria
    max_loss: float
    chosen_share: float | None = None
    shifts: Mapping[int, float] = field(default_factory=dict)


def interpolated(first: SSD300, second: SSD300, share: float) -> SSD300:
    """The average of two networks in FP32, statistics of batch norms included.

    Args:
        first: Has the part 1 - ``share``.
        second: Has the part ``share``; its channels are of the same form (see :func:`match_scales`).
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
    """Move where the score that counts lies for some classes: as a threshold of their own, but inside of the weights.

    A network takes some classes for likelier than they are where it is used, and others for less likely: a constant
    on their logits is the usual correction (Menon et al., "Long-tail learning via logit adjustment", 2021). The order
    of a class's detections stays, and with it all but all of its AP.

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
    """Evaluate averages of two networks, and publish the best one that keeps what the first can.

    The folder gets ``weights.safetensors``, ``MODEL_CARD.md``, ``interpolation.md``, ``.json`` and ``.png``.

    Raises:
        UserError: Weights or data are not what they should be; the message says what to do.
    """
    check_installed()
    if not mixture.validation:
        raise TrainingError("got nothing to choose by: give --validation IMAGES ANNOTATIONS")
    count = len(mixture.labels)
    first, second = (
        WeightsFile(path).load_network(mixture.backbone, count) for path in (mixture.first, mixture.second)
    )
    rescaled = match_scales(first, second)
    if rescaled:
        _log.info("%d channels of %s were rescaled for FP16 in one of both only", rescaled, mixture.first.name)
    others = {path: WeightsFile(path).load_network(mixture.backbone, count) for path in mixture.others}
    sets = [
        load_validation(one, _class_map(mixture), mixture.labels, device, skip_bad=False) for one in mixture.validation
    ]
    shares = sorted({0.0, *mixture.shares, mixture.chosen_share or 0.0, 1.0})
    with Validator(sets) as validator:
        judge = Judge(validator, mixture.labels, mixture.criteria)
        mixtures = []
        for share in shares:
            network = _mixed(first, second, share, mixture.shifts).to(device)
            mixtures.append(judge.evaluate(f"share {share:g}", share, network))
            _log.info("share %g: score %.4f", share, mixtures[-1].score)
        compared = [judge.evaluate(relative_to_cwd(path), None, one.to(device)) for path, one in others.items()]
    chosen = _chosen(mixture, mixtures)
    outcome = Interpolation(
        (mixture.first, mixture.second),
        mixture.backbone,
        mixture.labels,
        judge,
        mixture.max_loss,
        (*mixtures, *compared),
        chosen,
        {mixture.labels[class_id]: logit for class_id, logit in mixture.shifts.items()},
    )
    _publish(_mixed(first, second, chosen.share or 0.0, mixture.shifts), outcome, output)
    return outcome


def _mixed(first: SSD300, second: SSD300, share: float, shifts: Mapping[int, float]) -> SSD300:
    network = interpolated(first, second, share)
    # A share of 0 is the first network itself, to compare with.
    if share > 0:
        shift_classes(network, shifts)
    return network


def _publish(network: SSD300, outcome: Interpolation, output: Path) -> None:
    make_half_safe(network)
    weights = output / WEIGHTS
    about = {"num_labels": str(len(outcome.labels)), "backbone": outcome.backbone, "dataset": f"see {CARD}"}
    WeightsFile(weights).save_fp16(network, about)
    write_card(weights, outcome)
    write_report(output, outcome)


def _chosen(mixture: Mixture, mixtures: Sequence[Candidate]) -> Candidate:
    if mixture.chosen_share is None:
        return choose(mixtures, mixture.max_loss)
    return next(one for one in mixtures if one.share == mixture.chosen_share)


def _class_map(mixture: Mixture) -> ClassMap:
    def class_map(categories: Sequence[Category], source: str) -> Mapping[int, int]:
        return class_of_category(categories, mixture.labels, mixture.labels, mixture.name_map, source)

    return class_map
