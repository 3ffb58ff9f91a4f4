"""Detections of a running server in a dataset: many requests in flight, and every answer is kept at once."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from typing import Any

import numpy as np
from tqdm import tqdm

from ssd_triton.client import ClientError, DetectorClient, RequestRefusedError
from ssd_triton.common.detections import Detections
from ssd_triton.common.journal import differences
from ssd_triton.evaluation.annotations import Image
from ssd_triton.evaluation.answers import Answers
from ssd_triton.evaluation.dataset import Dataset
from ssd_triton.evaluation.errors import EvaluationError
from ssd_triton.evaluation.fingerprint import served_models
from ssd_triton.evaluation.metrics import CocoResult

_log = logging.getLogger(__name__)
_SAME_SCORE = 0.02
"""How far the scores of one image may differ between two runs of the same model, whose batches differ."""
_PROBED_DETECTIONS = 10

DetectionsOrRefusal = Detections | str
"""A server's detections in an image, or why it refuses the image."""
Keep = Callable[[Image, DetectionsOrRefusal, float], None]
"""Takes an image, its answer, and the seconds that its request took."""


@dataclass
class _PendingRequest:
    images: Sequence[Image]
    sent_s: float
    done_s: float | None = None

    @property
    def latency_s(self) -> float:
        # A future is done just before it calls back.
        return (self.done_s or time.monotonic()) - self.sent_s


def collect(client: DetectorClient, dataset: Dataset, answers: Answers, model: str, *, batch: int) -> None:
    """Send every image without an answer to a server, and keep the answers.

    If the server stops, requests are retried for up to the client's ``retry_s``. When it is back, it must serve the
    same model as before.

    Args:
        client: Client of a ready server.
        dataset: The images.
        answers: Answers kept so far, by image.
        model: The ensemble.
        batch: Images in a request.

    Raises:
        ClientError: The server fails, or does not come back in time.
        EvaluationError: The server serves another model than at the beginning, or a file cannot be read.
        JournalError: An answer cannot be written.
    """
    todo = [image for image in dataset.images if image.id not in answers.by_image]
    if not todo:
        return
    models = served_models(client, model)
    _probe(client, dataset, answers)
    answers.begin_session()
    retries = client.retries
    total, done = len(dataset.images), len(answers.by_image)
    bar = tqdm(total=total, initial=done, desc="evaluate", unit=" images", disable=None)

    def keep(image: Image, answer: DetectionsOrRefusal, latency_s: float) -> None:
        nonlocal retries
        if client.retries != retries:
            retries = client.retries
            # This answer may be from before the server stopped.
            client.wait_ready(timeout_s=client.retry_s or 0)
            _check_same(models, served_models(client, model))
        answers.add(image.id, answer, latency_s)
        bar.update()

    with bar:
        ask(client, dataset, todo, keep, batch=batch)


def coco_results(dataset: Dataset, answers: Answers) -> list[CocoResult]:
    """The kept detections in COCO's form, in the order of the images; refused images have none."""
    kept = ((image, answers.by_image[image.id].detections) for image in dataset.images)
    return [
        result
        for image, detections in kept
        if detections is not None
        for result in detections.to_coco(image.id, dataset.category_ids)
    ]


def ask(client: DetectorClient, dataset: Dataset, images: Sequence[Image], keep: Keep, *, batch: int) -> None:
    """Send images with the client's ``in_flight`` requests in flight, and hand over the answers as they arrive.

    The next files are read while the server works, so that it never waits for a request. When a request with several
    images is refused, each of them is sent alone.
    """
    in_flight: dict[Future[list[Detections]], _PendingRequest] = {}

    def send(group: Sequence[Image]) -> None:
        future = client.submit_batch([dataset.read(image) for image in group])
        request = in_flight[future] = _PendingRequest(group, time.monotonic())
        future.add_done_callback(lambda _: setattr(request, "done_s", time.monotonic()))

    def hand_over(done: Sequence[Future[list[Detections]]]) -> None:
        for future in done:
            request = in_flight.pop(future)
            answers = _answers(future)
            if len(request.images) > 1 and isinstance(answers[0], str):
                for image in request.images:
                    send([image])
                continue
            for image, answer in zip(request.images, answers, strict=True):
                keep(image, answer, request.latency_s)

    try:
        for group in _groups(images, batch):
            send(group)
            hand_over([future for future in in_flight if future.done()])
        while in_flight:
            wait(in_flight, return_when=FIRST_COMPLETED)
            hand_over([future for future in in_flight if future.done()])
    except (ClientError, KeyboardInterrupt):
        # Answers that have arrived are kept.
        answered = [future for future in in_flight if future.done() and not future.cancelled()]
        hand_over([future for future in answered if future.exception() is None])
        raise


def _answers(future: Future[list[Detections]]) -> Sequence[DetectionsOrRefusal]:
    try:
        return future.result()
    except RequestRefusedError as error:
        return [str(error)]


def _groups(images: Sequence[Image], size: int) -> Iterator[Sequence[Image]]:
    for start in range(0, len(images), size):
        yield images[start : start + size]


def _check_same(before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    changed = differences(before, now)
    if changed:
        raise EvaluationError(
            f"the server came back with another model: {'; '.join(changed[:3])}. Results until then are kept: start "
            "the server as it was and run the same command again"
        )


def _probe(client: DetectorClient, dataset: Dataset, answers: Answers) -> None:
    """Repeat the request for the image with the highest kept score, since a server does not report its weights.

    Raises:
        EvaluationError: The answer differs from the one that was kept.
    """
    kept = {key: one.detections for key, one in answers.by_image.items() if one.detections is not None}
    clearest = max(kept, key=lambda key: float(kept[key].scores.max(initial=0)), default=None)
    if clearest is None:
        return
    [image] = [image for image in dataset.images if image.id == clearest]
    expected = kept[clearest].scores[:_PROBED_DETECTIONS]
    got = client.detect(dataset.read(image)).scores[: len(expected)]
    if len(got) < len(expected) or np.abs(got - expected).max(initial=0) > _SAME_SCORE:
        raise EvaluationError(
            f"{answers.path} holds results of another model: for {image.file_name} it has the scores "
            f"{_first_scores(expected)}, and the server now gives {_first_scores(got)}. --restart drops them"
        )
    _log.info("resuming: %d images have been evaluated before", len(answers.by_image))


def _first_scores(scores: Any) -> str:
    return ", ".join(f"{score:.3f}" for score in scores[:3])
