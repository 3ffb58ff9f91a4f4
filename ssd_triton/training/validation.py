"""Validation while a network trains: the offline reference's protocol on images that are decoded once."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from types import TracebackType

import numpy as np
import torch
from PIL import Image as PillowImage
from torch import Tensor

from ssd_triton.common.detections import Detections
from ssd_triton.common.errors import listing
from ssd_triton.common.machine import cores
from ssd_triton.common.processes import start_pool
from ssd_triton.common.progress import progress
from ssd_triton.detector.network.ssd import SSD300, ServedDetector
from ssd_triton.detector.postprocessing.parameters import PostprocessParameters
from ssd_triton.detector.postprocessing.reference import postprocess
from ssd_triton.detector.protocol import preprocess
from ssd_triton.evaluation.annotations import read_annotations
from ssd_triton.evaluation.dataset import Dataset, DatasetSource
from ssd_triton.evaluation.metrics import CocoResult, Metrics, evaluate, to_coco
from ssd_triton.training.classes import LEFT_OUT
from ssd_triton.training.errors import TrainingError
from ssd_triton.training.examples import ClassMap, Source

_FEWEST_FOR_PROCESSES = 64
"""Below so many images, starting processes takes longer than what they do."""
_MOST_PROCESSES = 16
"""Each one imports PyTorch."""
_BATCH = 32
_BATCHES_UNDER_WAY = 6
"""Raw predictions take 3 MB an image: so many batches of them wait for the processes at most."""


@dataclass(frozen=True)
class ValidationSet:
    """Images to validate on, as the network sees them.

    Attributes:
        source: Where they come from; its weight is its part in the choice of the best snapshot.
        dataset: Ground truth, whose category ids are class ids.
        pixels: UINT8 [N, 300, 300, 3] RGB, on the device.
        sizes_px: Width and height of each original.
        content_sha256: Of the image files.
    """

    source: Source
    dataset: Dataset
    pixels: Tensor
    sizes_px: tuple[tuple[int, int], ...]
    content_sha256: tuple[str, ...]

    @property
    def file_names(self) -> tuple[str, ...]:
        """Of the images."""
        return tuple(image.file_name for image in self.dataset.images)


def load_validation(
    source: Source, class_map: ClassMap, labels: Sequence[str], device: torch.device, *, skip_bad: bool
) -> ValidationSet:
    """Read a dataset to validate on.

    Raises:
        EvaluationError: The annotation file is no COCO file or contradicts itself.
        TrainingError: A category is unknown, or images are missing or damaged.
    """
    found = read_annotations(source.annotations)
    classes = class_map(found.categories, source.name)
    images, pixels, sizes_px, sha256, bad = [], [], [], [], []
    for image in progress(found.images, total=len(found.images), description=f"read {source.name}", unit="images"):
        try:
            content = (source.images / image.file_name).read_bytes()
            resized, size_px = preprocess(content)
        # What PIL raises on damaged files; SyntaxError on PNGs.
        except (OSError, ValueError, SyntaxError, PillowImage.DecompressionBombError):
            bad.append(image.file_name)
            continue
        images.append(image)
        pixels.append(resized)
        sizes_px.append(size_px)
        sha256.append(hashlib.sha256(content).hexdigest())
    if not images or (bad and not skip_bad):
        raise TrainingError(
            f"{source.name}: {len(bad)} of {len(found.images)} validation images are missing or damaged: "
            f"{listing(bad)}; mend them, or leave them out with --skip-bad"
        )
    boxes = [
        one.model_copy(update={"category_id": classes[one.category_id]})
        for one in found.annotations
        if classes[one.category_id] != LEFT_OUT
    ]
    present = {one.category_id for one in boxes}
    dataset = Dataset(
        DatasetSource(source.images, source.annotations),
        images=(),
        left_out=tuple(bad),
        annotations=tuple(boxes),
        category_names={class_id: labels[class_id] for class_id in sorted(present)},
        category_ids={class_id: class_id for class_id in sorted(present)},
    ).restricted_to(images)
    return ValidationSet(source, dataset, torch.from_numpy(np.stack(pixels)).to(device), tuple(sizes_px), tuple(sha256))


class Validator:
    """Evaluates networks on validation sets, with processes for the post-processing where it is worth them."""

    def __init__(self, sets: Sequence[ValidationSet]) -> None:
        self.sets = tuple(sets)
        # FP32 as the offline reference; training takes bf16 anyway.
        torch.backends.cudnn.allow_tf32 = False
        self._pool: ProcessPoolExecutor | None = None
        if sum(len(one.sizes_px) for one in sets) >= _FEWEST_FOR_PROCESSES:
            self._pool = start_pool(min(cores(), _MOST_PROCESSES))

    def __enter__(self) -> Validator:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def evaluate(self, network: SSD300) -> list[Metrics]:
        """Figures of a network on each set, in FP32."""
        return [figures(one, found) for one, found in zip(self.sets, self.detections(network), strict=True)]

    def detections(self, network: SSD300) -> list[list[Detections]]:
        """What a network detects in each set's images, in FP32."""
        was_training, searches = network.training, torch.backends.cudnn.benchmark
        # To search for the fastest algorithm for each size of batch would take longer than all of them.
        torch.backends.cudnn.benchmark = False
        detector = ServedDetector(network).to(next(network.parameters()).device).eval()
        try:
            return [list(self._detect(detector, one)) for one in self.sets]
        finally:
            network.train(was_training)
            torch.backends.cudnn.benchmark = searches

    def score(self, metrics: Sequence[Metrics]) -> float | None:
        """The mean AP of the sets by their weights, 1 where none is given; None without sets."""
        weights = [1.0 if one.source.weight is None else one.source.weight for one in self.sets]
        if not sum(weights):
            return None
        return sum(weight * one.ap for weight, one in zip(weights, metrics, strict=True)) / sum(weights)

    def _detect(self, detector: ServedDetector, one: ValidationSet) -> Iterator[Detections]:
        """With a progress bar."""
        return progress(
            self._detections(detector, one),
            total=len(one.sizes_px),
            description=f"validate {one.source.name}",
            unit="images",
        )

    def _detections(self, detector: ServedDetector, one: ValidationSet) -> Iterator[Detections]:
        """Detections of every image in order; the processes work on one batch while the network runs the next."""
        under_way: deque[Future[Detections]] = deque()
        for start in range(0, len(one.sizes_px), _BATCH):
            with torch.no_grad():
                loc, conf = (raw.cpu() for raw in detector(one.pixels[start : start + _BATCH]))
            if self._pool is not None:
                # PyTorch hands tensors in shared memory to other processes without copying them.
                loc, conf = loc.share_memory_(), conf.share_memory_()
            for index, size_px in enumerate(one.sizes_px[start : start + _BATCH]):
                if self._pool is None:
                    yield _postprocess(loc[index], conf[index], size_px)
                else:
                    under_way.append(self._pool.submit(_postprocess, loc[index], conf[index], size_px))
            while len(under_way) > _BATCHES_UNDER_WAY * _BATCH:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()


def figures(one: ValidationSet, detections: Sequence[Detections]) -> Metrics:
    """Figures of what was detected in a set's images."""
    results: list[CocoResult] = []
    for image, found in zip(one.dataset.images, detections, strict=True):
        results += to_coco(found, image.id, one.dataset.category_ids)
    return evaluate(one.dataset, results)


def _postprocess(loc: Tensor, conf: Tensor, size_px: tuple[int, int]) -> Detections:
    return postprocess(loc.numpy(), conf.numpy(), size_px, PostprocessParameters())
