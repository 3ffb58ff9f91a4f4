"""All steps from photographs to weights that detect in photographs and in rendered traffic.

Trains on photographs while rendered traffic is drawn, fine-tunes the result on rendered traffic with itself as the
teacher on photographs, and averages both. A second training on photographs, from other weights, can run for comparison;
the better network is used. The best average is put into one folder with its card, figures and pictures. Steps that an
earlier run has finished are skipped.
"""

from __future__ import annotations

import csv
import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from ssd_triton.common.arrays import UInt8Array
from ssd_triton.common.files import atomic_output, relative_to_cwd
from ssd_triton.common.report import Block, Heading, ReportFolder, Table, markdown
from ssd_triton.config import Config, TrainingConfig
from ssd_triton.detector.weights.file import WeightsFile
from ssd_triton.evaluation.annotations import read_annotations
from ssd_triton.evaluation.drive import HEADER, count_classes, detect_drive, write_sheet
from ssd_triton.media.decoding import decode_rgb
from ssd_triton.media.images import read_image
from ssd_triton.simulation.dataset import write_dataset
from ssd_triton.simulation.judging.visibility import Criteria, JudgedFrame
from ssd_triton.simulation.judging.visibility_report import describe, write_report
from ssd_triton.training.background import Work, trainings
from ssd_triton.training.candidates import Candidate
from ssd_triton.training.class_map import ClassMap
from ssd_triton.training.examples import Source
from ssd_triton.training.initial_network import InitialWeights
from ssd_triton.training.interpolate import Mixture, interpolate
from ssd_triton.training.interpolation_report import candidates_table
from ssd_triton.training.model_card import CARD
from ssd_triton.training.train import WEIGHTS, TrainingRequest

_TRAINING_SEED = 1
_TRAINING_SIZES_PX = ((512, 288), (992, 300), (512, 288), (512, 384))
"""Half of the images are 16:9, as from most dash cams; the others have KITTI's 3.3:1, and 4:3. Each shape is squeezed
differently into the network's square. The lower edge of a box, from which ranges come, is learnt only for shapes in the
training data."""
_VALIDATION_WEIGHTS = {902: 0.3, 903: 0.0}
"""Weight of AP on rendered traffic in the choice, by the seed of the set; AP on photographs has weight 1. The second
set does not influence the choice, so that its figures are unbiased."""
_VALIDATION_SIZES_PX = ((640, 360),)
_PHOTOGRAPHS, _OTHER, _FINE_TUNED = "photographs", "photographs_other", "fine_tuned"
_WORST = 8
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class WeightsPlan:
    """Data and settings of all steps.

    Attributes:
        photographs: Photographs to train on, with their weights.
        validation: Photographs that are used to choose the weights.
        initial: Initial weights of the training on photographs.
        other: Initial weights of a second training, for comparison; or None.
        long: Recipe of the training on photographs.
        fine: Recipe of fine-tuning.
        real_share: Fraction of photographs among the images drawn in fine-tuning, in (0, 1).
        taught: Fine-tune on the network's own outputs for photographs, not on their annotations.
        drive: A folder of images without annotations, in which to count and draw detections; or None.
        rendered: Number of images to render for training and for each validation set.
        processes: Number of processes that render.
        criteria: Criteria for rendered images.
        shares: Shares of the fine-tuned network in the averages.
        max_loss: AP on photographs that fine-tuning may cost.
        shifts: Logits to add in every average, by class id.
        notes: Lines for the model cards.
    """

    photographs: Sequence[Source]
    validation: Source
    initial: InitialWeights
    other: InitialWeights | None
    long: TrainingConfig
    fine: TrainingConfig
    real_share: float
    taught: bool
    drive: Path | None
    rendered: tuple[int, int]
    processes: int
    criteria: Criteria
    shares: Sequence[float]
    max_loss: float
    shifts: Mapping[int, float] = field(default_factory=dict)
    notes: Sequence[str] = ()


class WeightsMaker:
    """Makes weights according to a plan, in one folder."""

    def __init__(
        self,
        plan: WeightsPlan,
        config: Config,
        labels: Sequence[str],
        output: Path,
        devices: tuple[torch.device, torch.device],
    ) -> None:
        """Store the arguments.

        Args:
            plan: Data and settings.
            config: Configuration; ``backbone`` and ``coco.name_map`` are used.
            labels: Class names by id, the background first.
            output: Folder for all files.
            devices: Main device, and device of the second training; if they differ, both trainings run at once.
        """
        self._plan, self._config, self._labels, self._output, self._devices = plan, config, labels, output, devices
        self._classes = ClassMap(labels, labels, config.coco.name_map)
        self._chosen = output / "chosen"

    def make(self) -> str:
        """Run all unfinished steps; the folder ``chosen`` gets the best weights, their card, figures and pictures.

        Returns:
            All figures as Markdown.

        Raises:
            UserError: Data, weights, settings or memory do not allow it; the message says what to do.
        """
        plan = self._plan
        photographs = replace(plan.validation, weight=1.0)
        with trainings(self._unfinished_long(photographs)):
            rendered = [
                replace(self._rendered(f"val_{seed}", plan.rendered[1], seed, _VALIDATION_SIZES_PX), weight=weight)
                for seed, weight in _VALIDATION_WEIGHTS.items()
            ]
            training = self._rendered("train", plan.rendered[0], _TRAINING_SEED, _TRAINING_SIZES_PX)
        long, *others = sorted(self._long_folders(), key=_best_ap, reverse=True)
        _log.info("fine-tuning goes on from %s", relative_to_cwd(long))
        with trainings(self._unfinished_fine(long, training, [photographs, rendered[0]])):
            pass
        validation = [photographs, *rendered]
        outcome = interpolate(self._mixture(long, others, validation), self._output / "interpolated", self._devices[0])
        self._collect(long)
        self._report_rendered(outcome.chosen, rendered[0])
        drive = [] if plan.drive is None else self._drive(plan.drive)
        text = markdown(Heading(f"Chosen: {outcome.chosen.name}", 1), candidates_table(outcome), *drive)
        ReportFolder(self._chosen).text("figures.md", text)
        return text

    def _rendered(self, name: str, count: int, seed: int, sizes_px: Sequence[tuple[int, int]]) -> Source:
        folder = self._output / "rendered" / name
        # The annotations are written last: without them, the folder is incomplete.
        if not (folder / "annotations.json").exists():
            _log.info("rendering %d images into %s", count, relative_to_cwd(folder))
            write_dataset(folder, count, seed, sizes_px, self._labels, processes=self._plan.processes)
        return Source(folder / "images", folder / "annotations.json")

    def _long_folders(self) -> list[Path]:
        names = [_PHOTOGRAPHS] if self._plan.other is None else [_PHOTOGRAPHS, _OTHER]
        return [self._output / name for name in names]

    def _unfinished_long(self, validation: Source) -> list[Work]:
        """The unfinished trainings on photographs."""
        plan, work = self._plan, []
        starts = [plan.initial] if plan.other is None else [plan.initial, plan.other]
        for folder, initial, device in zip(self._long_folders(), starts, self._devices, strict=False):
            request = TrainingRequest(plan.photographs, [validation], self._classes, initial, notes=plan.notes)
            work += _unfinished(folder, request, plan.long, device)
        return work

    def _unfinished_fine(self, long: Path, rendered: Source, validation: Sequence[Source]) -> list[Work]:
        """The fine-tuning on rendered traffic, unless finished, with photographs to preserve the network's skills."""
        plan = self._plan
        # A set without a weight has the weight of its images.
        real = sum(_images(one) if one.weight is None else one.weight for one in plan.photographs)
        request = TrainingRequest(
            training=[
                *(replace(one, taught=plan.taught) for one in plan.photographs),
                replace(rendered, weight=real * (1 / plan.real_share - 1)),
            ],
            validation=validation,
            classes=self._classes,
            initial=InitialWeights(self._config.backbone, checkpoint=long / WEIGHTS),
            notes=plan.notes,
        )
        return _unfinished(self._output / _FINE_TUNED, request, plan.fine, self._devices[0])

    def _mixture(self, long: Path, others: Sequence[Path], validation: Sequence[Source]) -> Mixture:
        plan = self._plan
        return Mixture(
            first=long / WEIGHTS,
            second=self._output / _FINE_TUNED / WEIGHTS,
            shares=plan.shares,
            others=[one / WEIGHTS for one in others],
            validation=validation,
            classes=self._classes,
            backbone=self._config.backbone,
            criteria=plan.criteria,
            max_loss=plan.max_loss,
            shifts=plan.shifts,
        )

    def _collect(self, long: Path) -> None:
        """Copy the chosen weights, their card, and the figures of all steps into one folder."""
        names = (WEIGHTS, CARD, "interpolation.md", "interpolation.json", "interpolation.png")
        files = {self._output / "interpolated" / name: name for name in names}
        for folder in (long, self._output / _FINE_TUNED):
            for name in ("log.csv", "validations.csv", "curves.png", "augmented.png"):
                files[folder / name] = f"{folder.name}.{name}"
        for source, name in files.items():
            with atomic_output(self._chosen / name) as temporary:
                shutil.copyfile(source, temporary)

    def _report_rendered(self, best: Candidate, rendered: Source) -> None:
        """Write tables and pictures of the best weights' detections in rendered traffic."""
        seen = best.visibility[1]
        if seen is None:
            return

        def pixels_of(frame: JudgedFrame) -> UInt8Array:
            return decode_rgb(read_image(rendered.images / frame.image.file_name), frame.image.file_name)

        facts = describe(None, self._chosen / WEIGHTS, rendered.images)
        write_report(self._chosen / "rendered_recall", seen, facts, pixels_of, self._labels, _WORST)

    def _drive(self, drive: Path) -> list[Block]:
        thresh = self._plan.criteria.score_thresh
        paths = [one / WEIGHTS for one in (*self._long_folders(), self._output / _FINE_TUNED, self._chosen)]
        rows = []
        for path in paths:
            network = WeightsFile(path).load_network(self._config.backbone, len(self._labels)).to(self._devices[0])
            found = detect_drive(network, self._devices[0], drive, thresh)
            rows.append(count_classes(found, self._labels).row(relative_to_cwd(path)))
        write_sheet(self._chosen / "drive.jpg", drive, found, self._labels)
        return [f"Boxes of a score above {thresh:g} in {drive.name}:", Table(HEADER, rows)]


def _unfinished(folder: Path, request: TrainingRequest, settings: TrainingConfig, device: torch.device) -> list[Work]:
    """A list with the training, or an empty one if it is finished."""
    if max((int(row["step"]) for row in _validations(folder)), default=0) >= settings.steps:
        _log.info("%s is finished already", relative_to_cwd(folder))
        return []
    return [(request, settings.model_copy(update={"output": folder}), device)]


def _best_ap(folder: Path) -> float:
    """Highest AP on photographs of a training that has ended."""
    return max(float(row["ap"]) for row in _validations(folder))


def _validations(folder: Path) -> list[dict[str, str]]:
    """Rows of a training's validations; its last step ends with one."""
    path = folder / "validations.csv"
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _images(source: Source) -> int:
    return len(read_annotations(source.annotations).images)
