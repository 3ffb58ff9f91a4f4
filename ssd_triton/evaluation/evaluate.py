"""An evaluation through a server from beginning to end: what ``clients/coco_eval.py`` does, and each variant gets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ssd_triton.client import DetectorClient
from ssd_triton.evaluation.dataset import Dataset
from ssd_triton.evaluation.environment import environment
from ssd_triton.evaluation.fingerprint import artefacts, check_classes, served_models
from ssd_triton.evaluation.journal import Journal, open_journal
from ssd_triton.evaluation.metrics import CocoResult, Metrics, evaluate
from ssd_triton.evaluation.served import coco_results, collect

JOURNAL = "results.jsonl"


@dataclass(frozen=True)
class Speed:
    """How fast the answers came; latencies are those of requests, retries included."""

    images_per_s: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    in_flight: int
    batch: int
    sessions: int
    """1, and one more for each time that the evaluation was interrupted."""
    retries: int
    """Of the last session."""


@dataclass(frozen=True)
class Evaluation:
    """A finished evaluation.

    Attributes:
        name: What was evaluated, for titles.
        dataset: On what.
        metrics: The figures.
        results: The detections that they are of.
        refused: Reasons, by file name, of images that count as without detections.
        speed: None where no server was asked.
        facts: What the figures belong to: server, models, machine, versions, date.
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
    """How a server is asked.

    Attributes:
        model: The ensemble.
        num_labels: Classes of the model, the background included.
        batch: Images in a request.
        restart: Drop what an earlier run has kept.
        repository: The folder that the server is known to serve, None for somebody else's server; its files are then
            part of what must stay the same between runs.
    """

    model: str
    num_labels: int
    batch: int = 1
    restart: bool = False
    repository: Path | None = None


def evaluate_served(
    client: DetectorClient, dataset: Dataset, folder: Path, settings: Settings, *, name: str
) -> Evaluation:
    """Evaluate what a server serves, going on from the answers that the folder holds already.

    Raises:
        ClientError: The server fails or stays away; what it has answered is kept.
        EvaluationError: See :func:`ssd_triton.evaluation.served.collect` and
            :func:`ssd_triton.evaluation.journal.open_journal`; or the model has other classes.
    """
    models = served_models(client, settings.model)
    check_classes(models, settings.num_labels)
    fingerprint = {
        "model": settings.model,
        "models": models,
        "artefacts": artefacts(models, settings.repository) if settings.repository else {},
        "dataset": dataset.fingerprint,
    }
    with open_journal(folder / JOURNAL, fingerprint, restart=settings.restart) as journal:
        collect(client, dataset, journal, settings.model, batch=settings.batch)
    facts = {"served": fingerprint, "server": {"triton": client.server_version()}, "environment": environment()}
    return finish(name, dataset, journal, _speed(journal, client, settings.batch), facts)


def finish(name: str, dataset: Dataset, journal: Journal, speed: Speed | None, facts: Mapping[str, Any]) -> Evaluation:
    """Compute the figures of what a journal holds."""
    results = coco_results(dataset, journal)
    refused = {
        image.file_name: reason for image in dataset.images if (reason := journal.results[image.id].refusal) is not None
    }
    return Evaluation(name, dataset, evaluate(dataset, results), results, refused, speed, facts)


def _speed(journal: Journal, client: DetectorClient, batch: int) -> Speed:
    latencies_ms = [result.latency_s * 1e3 for result in journal.results.values()]
    p50, p95, p99 = (round(float(value), 1) for value in np.percentile(latencies_ms, [50, 95, 99]))
    return Speed(
        images_per_s=round(len(latencies_ms) / journal.seconds(), 3),
        p50_ms=p50,
        p95_ms=p95,
        p99_ms=p99,
        in_flight=client.in_flight,
        batch=batch,
        sessions=journal.session + 1,
        retries=client.retries,
    )
