"""An evaluation through a server, from the first request to the figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ssd_triton.client import DetectorClient
from ssd_triton.common.machine import environment
from ssd_triton.evaluation.answers import JOURNAL, Answers, open_answers
from ssd_triton.evaluation.dataset import Dataset
from ssd_triton.evaluation.fingerprint import artefacts, check_classes, served_models
from ssd_triton.evaluation.metrics import CocoResult, Metrics, evaluate
from ssd_triton.evaluation.served import coco_results, collect


@dataclass(frozen=True)
class Speed:
    """Throughput, and latencies of requests with their retries."""

    images_per_s: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    in_flight: int
    batch: int
    sessions: int
    """1, and one more for each interruption."""
    retries: int
    """Requests sent again in the last session."""


@dataclass(frozen=True)
class Evaluation:
    """A finished evaluation.

    Attributes:
        name: What was evaluated, for titles.
        dataset: Images and ground truth.
        metrics: Figures of the detections.
        results: The detections.
        refused: Reasons by file name, for images that were refused; they count as without detections.
        speed: None without a server.
        facts: Server, models, machine, versions and date.
    """

    name: str
    dataset: Dataset
    metrics: Metrics
    results: list[CocoResult]
    refused: Mapping[str, str]
    speed: Speed | None
    facts: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """The content of ``metrics.json``; figures are in [0, 1], and null without ground truth."""
        truth = self.dataset.annotations
        return {
            "name": self.name,
            "set": self.dataset.set_name,
            "figures": dict(self.metrics.figures),
            "classes": [asdict(one) for one in self.metrics.classes],
            "counts": {
                "images": len(self.dataset.images),
                "images_left_out": list(self.dataset.left_out),
                "images_refused": dict(self.refused),
                "objects": sum(not one.iscrowd for one in truth),
                "crowds": sum(one.iscrowd for one in truth),
                "detections": len(self.results),
                "classes": len(self.dataset.category_ids),
            },
            "speed": asdict(self.speed) if self.speed else None,
            **self.facts,
        }


@dataclass(frozen=True)
class Settings:
    """Settings of the requests to a server.

    Attributes:
        model: The ensemble.
        num_labels: Classes of the model, the background included.
        batch: Images in a request.
        restart: Drop the answers of an earlier run.
        repository: The folder that the server serves; its files must then stay the same between runs. None for a server
            whose folder is unknown.
    """

    model: str
    num_labels: int
    batch: int = 1
    restart: bool = False
    repository: Path | None = None


def evaluate_served(
    client: DetectorClient, dataset: Dataset, folder: Path, settings: Settings, *, name: str
) -> Evaluation:
    """Evaluate the model on a server; answers that the folder holds already are not requested again.

    Raises:
        ClientError: The server fails, or does not come back in time; its answers are kept.
        EvaluationError: See :func:`ssd_triton.evaluation.served.collect`; or the model has other classes.
        JournalError: See :func:`ssd_triton.common.journal.open_journal`.
    """
    models = served_models(client, settings.model)
    check_classes(models, settings.num_labels)
    fingerprint = {
        "model": settings.model,
        "models": models,
        "artefacts": artefacts(models, settings.repository) if settings.repository else {},
        "dataset": dataset.fingerprint,
    }
    with open_answers(folder / JOURNAL, fingerprint, restart=settings.restart) as answers:
        collect(client, dataset, answers, settings.model, batch=settings.batch)
    facts = {"served": fingerprint, "server": {"triton": client.server_version()}, "environment": environment()}
    return finish(name, dataset, answers, _speed(answers, client, settings.batch), facts)


def finish(name: str, dataset: Dataset, answers: Answers, speed: Speed | None, facts: Mapping[str, Any]) -> Evaluation:
    """Compute the figures from kept answers."""
    results = coco_results(dataset, answers)
    refused = {
        image.file_name: reason
        for image in dataset.images
        if (reason := answers.by_image[image.id].refusal) is not None
    }
    return Evaluation(name, dataset, evaluate(dataset, results), results, refused, speed, facts)


def _speed(answers: Answers, client: DetectorClient, batch: int) -> Speed:
    latencies_ms = [result.latency_s * 1e3 for result in answers.by_image.values()]
    p50, p95, p99 = (round(float(value), 1) for value in np.percentile(latencies_ms, [50, 95, 99]))
    return Speed(
        images_per_s=round(len(latencies_ms) / answers.seconds(), 3),
        p50_ms=p50,
        p95_ms=p95,
        p99_ms=p99,
        in_flight=client.in_flight,
        batch=batch,
        sessions=answers.session + 1,
        retries=client.retries,
    )
