"""Measures the AP lost and the time saved by decoding large JPEG files at a reduced scale, through the ensemble."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image as PilImage

from ssd_triton.client import DetectorClient
from ssd_triton.common.detections import Detections
from ssd_triton.common.in_flight import submit_ahead
from ssd_triton.common.model_names import PREPROCESS
from ssd_triton.common.progress import progress
from ssd_triton.common.report import ReportFolder, Table, markdown
from ssd_triton.config import Config
from ssd_triton.detector.network.boxes import IMAGE_SIZE_PX
from ssd_triton.evaluation.annotations import Image
from ssd_triton.evaluation.dataset import Dataset
from ssd_triton.evaluation.metrics import CocoResult, evaluate
from ssd_triton.measuring.sweeps.server_statistics import ServerStatistics, stages
from ssd_triton.measuring.sweeps.sweep_file import ModelTuning
from ssd_triton.measuring.sweeps.tuning import tuned_repository
from ssd_triton.media.decoding import open_rgb
from ssd_triton.serving.server import EmbeddedServer

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_QUALITY = 92
"""JPEG quality of the enlarged files, typical of cameras."""
_TIMEOUT_S = 120.0


@dataclass(frozen=True)
class DecodeCost:
    """Accuracy and time for one size of images, decoded in full and at half the size.

    Attributes:
        ratio: Smaller side after decoding at half the size, divided by the side of the network's input.
        side_px: Smaller side of the files.
        ap_whole: AP of files decoded in full, in [0, 1].
        ap_reduced: AP of files decoded at half the size.
        whole_ms: Mean preprocessing time of an image by the server's counters, decoded in full.
        reduced_ms: The same, decoded at half the size.
    """

    ratio: float
    side_px: int
    ap_whole: float
    ap_reduced: float
    whole_ms: float
    reduced_ms: float


def measure_reduced_decode(config: Config, variant: str, dataset: Dataset, ratios: Sequence[float]) -> list[DecodeCost]:
    """Enlarge the images of a dataset until decoding at half the size just applies, and evaluate both ways.

    This is the worst case of each ratio, since larger files keep more pixels.

    Args:
        config: The project's configuration.
        variant: Variant of the detector.
        dataset: Images and ground truth.
        ratios: Values of the parameter ``reduced_decode_ratio`` of ``ssd_preprocess``.

    Raises:
        ServerError: The server does not start.
        ClientError: The server fails.
        EvaluationError: An image cannot be read.
    """
    return [_measure(config, variant, dataset, ratio) for ratio in ratios]


def _measure(config: Config, variant: str, dataset: Dataset, ratio: float) -> DecodeCost:
    side_px = int(np.ceil(2 * ratio * IMAGE_SIZE_PX))
    whole_ap, whole_ms = _evaluate(config, variant, dataset, side_px, "0")
    reduced_ap, reduced_ms = _evaluate(config, variant, dataset, side_px, str(ratio))
    return DecodeCost(ratio, side_px, whole_ap, reduced_ap, whole_ms, reduced_ms)


def _evaluate(config: Config, variant: str, dataset: Dataset, side_px: int, ratio: str) -> tuple[float, float]:
    """Return the AP, and the milliseconds of preprocessing an image."""
    settings = config.server.for_one_run()
    tuning = {PREPROCESS: ModelTuning(parameters={"reduced_decode_ratio": ratio})}
    results: list[CocoResult] = []
    with tempfile.TemporaryDirectory(prefix="reduced-decode-") as folder:
        repository = tuned_repository(config.model_repository, tuning, Path(folder) / "model_repository")
        with (
            EmbeddedServer(repository, variant, settings) as server,
            DetectorClient(server.url("grpc"), timeout_s=_TIMEOUT_S, in_flight=2) as client,
        ):
            statistics = ServerStatistics(server.url("grpc"), _TIMEOUT_S)
            before = statistics.counters()
            description = f"{side_px} px, reduced_decode_ratio {ratio}"
            images = progress(dataset.images, total=len(dataset.images), description=description, unit="images")

            scales: dict[int, float] = {}

            def send(image: Image) -> Future[Detections]:
                encoded, scales[image.id] = enlarged(dataset.read(image), side_px)
                return client.submit(encoded)

            for image, future in submit_ahead(images, send, client.in_flight):
                found = future.result()
                original = replace(found, boxes_xyxy=found.boxes_xyxy / scales[image.id])
                results += original.to_coco(image.id, dataset.category_ids)
            [stage] = [one for one in stages(before, statistics.counters()) if one.model == PREPROCESS]
            statistics.close()
    return evaluate(dataset, results).ap, stage.infer_ms


def enlarged(encoded: bytes, side_px: int) -> tuple[bytes, float]:
    """Return the image as a JPEG file with the given smaller side, and its scale relative to the original."""
    image = open_rgb(encoded)
    scale = side_px / min(image.size)
    buffer = io.BytesIO()
    larger = image.resize((round(image.width * scale), round(image.height * scale)), PilImage.Resampling.LANCZOS)
    larger.save(buffer, "JPEG", quality=_QUALITY)
    return buffer.getvalue(), scale


def write_report(folder: Path, subject: str, costs: Sequence[DecodeCost]) -> str:
    """Write ``reduced_decode.md`` and ``reduced_decode.png``, and return the text of the former."""
    rows = [
        [
            f"{cost.ratio:g}",
            str(cost.side_px),
            f"{cost.ap_whole:.4f}",
            f"{cost.ap_reduced:.4f}",
            f"{cost.ap_reduced - cost.ap_whole:+.4f}",
            f"{cost.whole_ms:.1f}",
            f"{cost.reduced_ms:.1f}",
        ]
        for cost in costs
    ]
    header = ["reduced_decode_ratio", "smaller side, px", "AP whole", "AP reduced", "difference", "whole, ms"]
    found = Table([*header, "reduced, ms"], rows, "JPEG files decoded whole and at half the size")
    text, report = markdown(subject, found), ReportFolder(folder)
    report.text("reduced_decode.md", text)
    report.picture("reduced_decode.png", lambda figure: _draw(figure, costs), columns=2)
    return text


def _draw(figure: Figure, costs: Sequence[DecodeCost]) -> None:
    """Draw AP and time of both ways of decoding."""
    positions = np.arange(len(costs))
    whole = ([cost.ap_whole for cost in costs], [cost.whole_ms for cost in costs])
    reduced = ([cost.ap_reduced for cost in costs], [cost.reduced_ms for cost in costs])
    panels = figure.subplots(1, 2)
    for axes, unit, *values in zip(panels, ("COCO AP", "preprocessing, ms an image"), whole, reduced, strict=True):
        for aside, label, heights in zip((-0.2, 0.2), ("whole", "at half the size"), values, strict=True):
            axes.bar(positions + aside, heights, 0.4, label=label)
        axes.set_xticks(positions, [f"{cost.side_px} px" for cost in costs])
        axes.set(ylabel=unit, xlabel="smaller side of the files")
    panels[1].legend()
