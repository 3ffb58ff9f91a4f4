"""The accuracy of every variant that runs here, each through a server, against PyTorch FP32 on the same images."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ssd_triton.client import DetectorClient
from ssd_triton.common.labels import load_labels
from ssd_triton.common.machine import environment
from ssd_triton.common.model_names import DETECTOR
from ssd_triton.common.report import ReportFolder, Table, markdown
from ssd_triton.config import Config
from ssd_triton.detector.network.ssd import ServedDetector
from ssd_triton.detector.variants import Variant
from ssd_triton.detector.weights.file import WeightsFile
from ssd_triton.evaluation.answers import JOURNAL, open_answers
from ssd_triton.evaluation.dataset import Dataset
from ssd_triton.evaluation.evaluate import Evaluation, Settings, evaluate_served, finish
from ssd_triton.evaluation.offline import detect_all
from ssd_triton.evaluation.report import figure, write_report
from ssd_triton.serving.repository.build import artefacts, ensure_built
from ssd_triton.serving.repository.repository import ModelRepository
from ssd_triton.serving.server import EmbeddedServer

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_log = logging.getLogger(__name__)
REFERENCE = "PyTorch FP32, offline"
_FIGURES = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large")
_REFERENCE_BATCH = 4
"""Images in a batch; on a CPU, larger batches only take more memory."""


@dataclass(frozen=True)
class Requests:
    """Load on a server: requests in flight at once, and images in each."""

    in_flight: int
    batch: int


@dataclass(frozen=True)
class Comparison:
    """One variant.

    Attributes:
        variant: Its name.
        evaluation: None where it does not run here.
        difference: AP minus that of PyTorch FP32.
        allowed: Largest difference, either way.
        note: A remark for the reader, such as why it does not run.
    """

    variant: str
    evaluation: Evaluation | None
    difference: float
    allowed: float
    note: str = ""

    @property
    def passed(self) -> bool:
        """Whether the difference is small enough; a variant that does not run here passes."""
        return self.evaluation is None or abs(self.difference) <= self.allowed


def compare(
    config: Config,
    dataset: Dataset,
    folder: Path,
    *,
    only: Sequence[str] = (),
    requests: Requests,
    restart: bool = False,
) -> tuple[Evaluation, list[Comparison]]:
    """Evaluate the offline reference and every variant, one after the other.

    Each has its own folder with its report; answers that are kept there are not requested again.

    Args:
        config: The project's configuration.
        dataset: Images and ground truth.
        folder: Parent of the variants' folders.
        only: Variants; empty takes all that the repository has.
        requests: Load on the servers.
        restart: Drop the answers of an earlier run.

    Raises:
        ConfigError: A variant is unknown.
        EvaluationError: See :func:`ssd_triton.evaluation.evaluate.evaluate_served`.
        ServerError: A variant's server does not start.
    """
    repository = ModelRepository(config.model_repository)
    chosen = list(only or repository.variants)
    table = {variant: repository.table_entry(variant) for variant in chosen}
    unavailable = {variant: artefacts(config, only=[variant])[-1].unavailable_because() for variant in chosen}
    reference = evaluate_reference(config, dataset, folder / "reference", restart=restart)
    compared = []
    for variant in chosen:
        allowed = config.accuracy.get(variant, table[variant].max_ap_difference)
        reason = unavailable[variant]
        if reason is not None:
            compared.append(Comparison(variant, None, 0.0, allowed, f"skipped: {reason}"))
            continue
        found = _evaluate_variant(config, variant, dataset, folder / variant, requests=requests, restart=restart)
        difference = found.metrics.ap - reference.metrics.ap
        compared.append(Comparison(variant, found, difference, allowed, _note(table[variant], found)))
    return reference, compared


def evaluate_reference(config: Config, dataset: Dataset, folder: Path, *, restart: bool = False) -> Evaluation:
    """Evaluate the network in PyTorch FP32 without a server, on a GPU if there is one."""
    parameters = ModelRepository(config.model_repository).thresholds
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    weights = WeightsFile(config.weights_path)
    fingerprint = {
        "weights_sha256": weights.sha256,
        "backbone": config.backbone,
        "parameters": parameters.model_dump(),
        "device": device.type,
        "dataset": dataset.fingerprint,
    }
    with open_answers(folder / JOURNAL, fingerprint, restart=restart) as answers:
        todo = dataset.restricted_to([image for image in dataset.images if image.id not in answers.by_image])
        if todo.images:
            network = weights.load_network(config.backbone, len(load_labels(config.labels_path)))
            detector = ServedDetector(network).eval().to(device)
            answers.begin_session()
            # TF32, on by default for convolutions, would make FP32 another precision.
            with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
                for image, found in detect_all(detector, todo, device, _REFERENCE_BATCH, parameters):
                    answers.add(image.id, found, 0.0)
    facts = {"reference": fingerprint, "environment": environment()}
    evaluation = finish(REFERENCE, dataset, answers, None, facts)
    write_report(evaluation, folder)
    return evaluation


def _evaluate_variant(
    config: Config, variant: str, dataset: Dataset, folder: Path, *, requests: Requests, restart: bool
) -> Evaluation:
    ensure_built(config, _log.info, only=[variant])
    settings = config.server.for_one_run()
    num_labels = len(load_labels(config.labels_path))
    asked = Settings("ssd", num_labels, batch=requests.batch, restart=restart, repository=config.model_repository)
    _log.info("evaluating %s", variant)
    with (
        EmbeddedServer(config.model_repository, variant, settings) as server,
        DetectorClient(server.url("grpc"), timeout_s=config.client.timeout_s, in_flight=requests.in_flight) as client,
    ):
        evaluation = evaluate_served(client, dataset, folder, asked, name=variant)
    write_report(evaluation, folder)
    return evaluation


def _note(variant: Variant, evaluation: Evaluation) -> str:
    kinds = evaluation.facts["served"]["models"][DETECTOR]["instance_kinds"]
    precision = variant.precisions.get("gpu" if "KIND_GPU" in kinds else "cpu", variant.precision)
    if precision == variant.precision:
        return ""
    return f"ran in {precision.upper()}: {variant.precision.upper()} needs a GPU"


def comparison_table(reference: Evaluation, compared: Sequence[Comparison]) -> Table:
    """One variant a row; figures are in [0, 1]."""
    rows = [[REFERENCE, *_figures(reference), *[""] * 4]]
    for one in compared:
        if one.evaluation is None or one.evaluation.speed is None:
            rows.append([f"`{one.variant}`", *[""] * 9, one.note])
            continue
        verdict = " ".join(filter(None, ("ok" if one.passed else "FAILED", f"({one.note})" if one.note else "")))
        difference, speed = f"{one.difference:+.5f}", f"{one.evaluation.speed.images_per_s:.2f}"
        rows.append(
            [f"`{one.variant}`", *_figures(one.evaluation), difference, f"{one.allowed:g}", speed, verdict],
        )
    header = ["variant", "AP", "AP50", "AP75", "small", "medium", "large", "AP to FP32", "allowed", "images/s", ""]
    return Table(header, rows)


def write_comparison(folder: Path, reference: Evaluation, compared: Sequence[Comparison]) -> str:
    """Write ``accuracy.md`` and ``accuracy.png``, and return the text of the former.

    Raises:
        ReportError: They cannot be written.
    """
    report = ReportFolder(folder)
    text = markdown(reference.dataset.set_name, comparison_table(reference, compared))
    report.text("accuracy.md", text)
    report.picture("accuracy.png", lambda canvas: _draw(canvas, reference, compared))
    return text


def _draw(canvas: Figure, reference: Evaluation, compared: Sequence[Comparison]) -> None:
    """Plot AP over images a second, with that of the reference."""
    axes = canvas.subplots()
    axes.axhline(reference.metrics.ap, color="0.4", linestyle="--", linewidth=1, label=REFERENCE)
    for one in compared:
        if one.evaluation is not None and one.evaluation.speed is not None:
            speed, ap = one.evaluation.speed.images_per_s, one.evaluation.metrics.ap
            [point] = axes.plot(speed, ap, marker="o", linestyle="", label=one.variant)
            lowest, highest = reference.metrics.ap - one.allowed, reference.metrics.ap + one.allowed
            axes.vlines(speed, lowest, highest, point.get_color(), alpha=0.4, linewidth=4)
    axes.set(title=reference.dataset.set_name, xlabel="images/s through the server", ylabel="COCO AP")
    axes.set_xlim(left=0)
    axes.legend(title="bars: what is allowed")


def _figures(evaluation: Evaluation) -> list[str]:
    return [figure(evaluation.metrics.figures[name]) for name in _FIGURES]
