"""All steps from photographs and a checkpoint to weights that detect in photographs and in rendered traffic.

Renders training and validation images, fine-tunes the checkpoint on photographs and rendered traffic, and averages the
result with the checkpoint. Given an ImageNet backbone, also trains a whole network from it, for comparison. Puts the
best weights into one folder with their card, figures and pictures. Steps that an earlier run has finished are skipped.
"""

from __future__ import annotations

import csv
import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ssd_triton.common.arrays import UInt8Array
from ssd_triton.common.files import atomic_output, relative_to_cwd
from ssd_triton.common.report import Block, Heading, ReportFolder, Table, markdown
from ssd_triton.config import Config, TrainingConfig
from ssd_triton.detector.weights.file import WeightsFile
from ssd_triton.evaluation.drive import HEADER, count_classes, detect_drive, write_sheet
from ssd_triton.media.decoding import decode_rgb
from ssd_triton.media.images import read_image
from ssd_triton.simulation.dataset import write_dataset
from ssd_triton.simulation.judging.visibility import Criteria, JudgedFrame
from ssd_triton.simulation.judging.visibility_report import describe, write_report
from ssd_triton.training.candidates import Candidate, choose
from ssd_triton.training.class_map import ClassMap
from ssd_triton.training.examples import Source
from ssd_triton.training.initial_network import InitialWeights
from ssd_triton.training.interpolate import Mixture, interpolate
from ssd_triton.training.interpolation_report import candidates_table
from ssd_triton.training.model_card import CARD
from ssd_triton.training.train import WEIGHTS, TrainingRequest, train
from ssd_triton.training.trainer import SNAPSHOT

_TRAINING_SEED, _VALIDATION_SEED = 1, 902
_TRAINING_SIZES_PX = ((512, 288), (992, 300), (512, 288), (512, 384))
"""Half 16:9, as in most dash cams, the others KITTI's 3.3:1 and 4:3. Each shape is squeezed differently into the
network's square, and the lower edge of a box, from which ranges come, is only learnt for shapes in the training."""
_VALIDATION_SIZES_PX = ((640, 360),)
_RENDERED_WEIGHT = 0.3
"""Weight of AP on rendered traffic in the choice; AP on photographs has weight 1."""
_WORST = 8
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Branch:
    """One training.

    Attributes:
        name: Name of its folder.
        settings: Its recipe.
        initial: Weights to start with.
        real_share: Fraction of the drawn images that are photographs, in (0, 1).
        taught: Train on the checkpoint's detections in photographs, instead of on their annotations.
    """

    name: str
    settings: TrainingConfig
    initial: InitialWeights
    real_share: float
    taught: bool = False


@dataclass(frozen=True)
class WeightsPlan:
    """Data and settings of all steps.

    Attributes:
        photographs: Photographs to train on.
        validation: Photographs that choose the weights.
        checkpoint: Weights to fine-tune.
        fine_tuning: The training from the checkpoint.
        whole: A training from an ImageNet backbone, or None.
        drive: A folder of images without annotations, for a look at the detections; or None.
        rendered: Number of images to render for training and for validation.
        processes: Number of processes that render.
        criteria: Criteria for rendered images.
        shares: Shares of the fine-tuned network in the averages.
        max_loss: AP on photographs that may be lost against the checkpoint.
        notes: Lines for the model cards.
    """

    photographs: Source
    validation: Source
    checkpoint: Path
    fine_tuning: Branch
    whole: Branch | None
    drive: Path | None
    rendered: tuple[int, int]
    processes: int
    criteria: Criteria
    shares: Sequence[float]
    max_loss: float
    notes: Sequence[str] = ()


class WeightsMaker:
    """Makes weights by a plan, in one folder."""

    def __init__(
        self, plan: WeightsPlan, config: Config, labels: Sequence[str], output: Path, device: torch.device
    ) -> None:
        """Do nothing yet.

        Args:
            plan: Data and settings.
            config: Its backbone and ``coco.name_map`` are used.
            labels: Class names by id, the background first.
            output: Folder for everything.
            device: Device to train and evaluate on.
        """
        self._plan, self._config, self._labels, self._output, self._device = plan, config, labels, output, device
        self._classes = ClassMap(labels, labels, config.coco.name_map)
        self._chosen = output / "chosen"
        self._branches = [branch for branch in (plan.fine_tuning, plan.whole) if branch is not None]

    def make(self) -> str:
        """Do what is not done yet; the folder ``chosen`` gets the best weights, their card, figures and pictures.

        Returns:
            All figures as Markdown.

        Raises:
            UserError: Data, weights, settings or memory do not allow it; the message says what to do.
        """
        plan = self._plan
        training = self._rendered("train", plan.rendered[0], _TRAINING_SEED, _TRAINING_SIZES_PX)
        rendered = self._rendered("val", plan.rendered[1], _VALIDATION_SEED, _VALIDATION_SIZES_PX)
        validation = [replace(plan.validation, weight=1.0), replace(rendered, weight=_RENDERED_WEIGHT)]
        for branch in self._branches:
            self._train(branch, (plan.photographs, training), validation)
        outcome = interpolate(self._mixture(validation), self._output / "interpolated", self._device)
        best = choose(outcome.candidates, plan.max_loss)
        self._collect(best)
        self._report_rendered(best, rendered)
        drive = [] if plan.drive is None else self._drive(plan.drive)
        text = markdown(Heading(f"Chosen: {best.name}", 1), candidates_table(outcome), *drive)
        ReportFolder(self._chosen).text("figures.md", text)
        return text

    def _rendered(self, name: str, count: int, seed: int, sizes_px: Sequence[tuple[int, int]]) -> Source:
        folder = self._output / "rendered" / name
        # The annotations are written last: without them, the folder is incomplete.
        if not (folder / "annotations.json").exists():
            _log.info("rendering %d images into %s", count, relative_to_cwd(folder))
            write_dataset(folder, count, seed, sizes_px, self._labels, processes=self._plan.processes)
        return Source(folder / "images", folder / "annotations.json")

    def _train(self, branch: Branch, training: tuple[Source, Source], validation: Sequence[Source]) -> None:
        """Train or resume, unless the training is finished."""
        folder = self._output / branch.name
        if _last_step(folder) >= branch.settings.steps:
            _log.info("%s is finished already", relative_to_cwd(folder))
            return
        _log.info("training: %s", branch.name)
        photographs, rendered = training
        request = TrainingRequest(
            training=[
                replace(photographs, weight=branch.real_share, taught=branch.taught),
                replace(rendered, weight=1 - branch.real_share),
            ],
            validation=validation,
            classes=self._classes,
            initial=branch.initial,
            notes=self._plan.notes,
        )
        settings = branch.settings.model_copy(update={"output": folder})
        train(request, settings, self._device, resume=(folder / SNAPSHOT).exists())

    def _weights_of(self, branch: Branch) -> Path:
        return self._output / branch.name / WEIGHTS

    def _mixture(self, validation: Sequence[Source]) -> Mixture:
        plan = self._plan
        return Mixture(
            first=plan.checkpoint,
            second=self._weights_of(plan.fine_tuning),
            shares=plan.shares,
            others=[] if plan.whole is None else [self._weights_of(plan.whole)],
            validation=validation,
            classes=self._classes,
            backbone=self._config.backbone,
            criteria=plan.criteria,
            max_loss=plan.max_loss,
        )

    def _collect(self, best: Candidate) -> None:
        """Copy the best weights, their card, and the figures of all steps into one folder."""
        mixed = self._output / "interpolated"
        whole = self._plan.whole
        origin = mixed if whole is None or best.share is not None else self._output / whole.name
        files = {origin / name: name for name in (WEIGHTS, CARD)}
        files |= {mixed / name: name for name in ("interpolation.md", "interpolation.json", "interpolation.png")}
        for branch in self._branches:
            for name in ("log.csv", "validations.csv", "curves.png", "augmented.png"):
                files[self._output / branch.name / name] = f"{branch.name}.{name}"
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
        paths = [self._plan.checkpoint, *map(self._weights_of, self._branches), self._chosen / WEIGHTS]
        rows = []
        for path in paths:
            network = WeightsFile(path).load_network(self._config.backbone, len(self._labels)).to(self._device)
            found = detect_drive(network, self._device, drive, thresh)
            rows.append(count_classes(found, self._labels).row(relative_to_cwd(path)))
        write_sheet(self._chosen / "drive.jpg", drive, found, self._labels)
        return [f"Boxes of a score above {thresh:g} in {drive.name}:", Table(HEADER, rows)]


def _last_step(folder: Path) -> int:
    """The step of a training's last validation; its last step ends with one."""
    path = folder / "validations.csv"
    if not path.exists():
        return 0
    with path.open(newline="", encoding="utf-8") as file:
        return max((int(row["step"]) for row in csv.DictReader(file)), default=0)
