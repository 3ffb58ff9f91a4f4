"""Validation during training: the offline reference's protocol on images that are decoded once."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ssd_triton.common.cores import usable_cores
from ssd_triton.common.detections import Detections
from ssd_triton.common.errors import ImageError, listing
from ssd_triton.common.processes import process_pool
from ssd_triton.common.progress import progress
from ssd_triton.detector.network.ssd import SSD300, ServedDetector
from ssd_triton.detector.postprocessing.parameters import PostprocessParameters
from ssd_triton.detector.postprocessing.reference import postprocess
from ssd_triton.detector.protocol import preprocess
from ssd_triton.evaluation.annotations import read_annotations, used_categories
from ssd_triton.evaluation.dataset import Dataset, DatasetSource
from ssd_triton.evaluation.metrics import CocoResult, Metrics, evaluate
from ssd_triton.evaluation.orientation import is_annotated_upright, upright_refusal
from ssd_triton.media.images import read_image
from ssd_triton.training.class_map import LEFT_OUT, ClassMap
from ssd_triton.training.errors import TrainingError
from ssd_triton.training.examples import Examples, Source

_FEWEST_FOR_PROCESSES = 64
"""With fewer images, starting the processes takes longer than their work."""
_MOST_PROCESSES = 16
"""Each process imports PyTorch."""
_BATCH = 32
_BATCHES_IN_FLIGHT = 6
"""Largest number of batches that wait for the processes; raw predictions take 3 MB an image."""


@dataclass(frozen=True)
class ValidationSet:
    """Images to validate on, as the network sees them.

    Attributes:
        source: The dataset; its weight counts in the choice of the best snapshot.
        dataset: Ground truth, whose category ids are class ids.
        pixels: UINT8 [N, 300, 300, 3] RGB, on the device.
        sizes_px: Width and height of each original.
        content_sha256: One for each image file.
    """

    source: Source
    dataset: Dataset
    pixels: Tensor
    sizes_px: tuple[tuple[int, int], ...]
    content_sha256: tuple[str, ...]

    @property
    def file_names(self) -> tuple[str, ...]:
        """One for each image."""
        return tuple(image.file_name for image in self.dataset.images)


def load_validation(source: Source, class_map: ClassMap, device: torch.device, *, skip_bad: bool) -> ValidationSet:
    """Read a dataset to validate on.

    Raises:
        EvaluationError: The annotation file is no COCO file or contradicts itself.
        TrainingError: A category is unknown, images are missing or damaged, or images were annotated as EXIF turns
            them.
    """
    found = read_annotations(source.annotations)
    classes = class_map.class_ids(used_categories(found, class_map.names), source.name)
    images, pixels, sizes_px, sha256, bad, turned = [], [], [], [], [], []
    for image in progress(found.images, total=len(found.images), description=f"read {source.name}", unit="images"):
        try:
            content = read_image(source.images / image.file_name)
            resized, size_px = preprocess(content)
        except ImageError:
            bad.append(image.file_name)
            continue
        if is_annotated_upright(image, size_px, content):
            turned.append(image.file_name)
        images.append(image)
        pixels.append(resized)
        sizes_px.append(size_px)
        sha256.append(hashlib.sha256(content).hexdigest())
    if not images or (bad and not skip_bad):
        raise TrainingError(
            f"{source.name}: {len(bad)} of {len(found.images)} validation images are missing or damaged: "
            f"{listing(bad)}; repair them, or leave them out with --skip-bad"
        )
    if turned:
        raise TrainingError(upright_refusal(source.name, turned, len(images)))
    boxes = [
        one.model_copy(update={"category_id": classes[one.category_id]})
        for one in found.annotations
        if classes[one.category_id] != LEFT_OUT
    ]
    present = sorted({one.category_id for one in boxes})
    dataset = Dataset(
        DatasetSource(source.images, source.annotations),
        images=(),
        left_out=tuple(bad),
        annotations=tuple(boxes),
        category_names={class_id: class_map.labels[class_id] for class_id in present},
        category_ids={class_id: class_id for class_id in present},
    ).restricted_to(images)
    return ValidationSet(source, dataset, torch.from_numpy(np.stack(pixels)).to(device), tuple(sizes_px), tuple(sha256))


def refuse_overlap(training: Sequence[Examples], validation: ValidationSet) -> None:
    """Refuse to train on validation images, found by name and by content.

    A shrunk copy of a COCO image keeps its name, the image's number; a renamed copy keeps its content.

    Raises:
        TrainingError: Some training images are validation images.
    """
    names, contents = {stem(name) for name in validation.file_names}, set(validation.content_sha256)
    for examples in training:
        pairs = zip(examples.file_names, examples.content_sha256, strict=True)
        same = [name for name, sha256 in pairs if stem(name) in names or sha256 in contents]
        if same:
            raise TrainingError(
                f"{len(same)} of {len(examples)} images of {examples.source.name} are validation images: "
                f"{listing(same)}; remove them from the training set, or validate on another set"
            )


def stem(file_name: str) -> str:
    """An image's name in its data set, without the prefixes of COCO 2014."""
    return Path(file_name).stem.removeprefix("COCO_train2014_").removeprefix("COCO_val2014_")


@contextmanager
def open_validator(sets: Sequence[ValidationSet]) -> Iterator[Validator]:
    """Open a validator, with processes for the post-processing, unless the sets are small."""
    few = sum(len(one.sizes_px) for one in sets) < _FEWEST_FOR_PROCESSES
    with nullcontext() if few else process_pool(min(usable_cores(), _MOST_PROCESSES)) as pool:
        yield Validator(sets, pool)


class Validator:
    """Evaluates networks on validation sets."""

    def __init__(self, sets: Sequence[ValidationSet], pool: ProcessPoolExecutor | None) -> None:
        """See :func:`open_validator`."""
        self.sets, self._pool = tuple(sets), pool
        # FP32 as in the offline reference; training uses bf16 anyway.
        torch.backends.cudnn.allow_tf32 = False

    def evaluate(self, network: SSD300) -> list[Metrics]:
        """Compute a network's figures on each set, in FP32."""
        return [figures(one, found) for one, found in zip(self.sets, self.detections(network), strict=True)]

    def detections(self, network: SSD300) -> list[list[Detections]]:
        """Compute a network's detections in each set, in FP32."""
        was_training, searches = network.training, torch.backends.cudnn.benchmark
        # The search for the fastest algorithm for each batch size would take longer than the evaluation.
        torch.backends.cudnn.benchmark = False
        detector = ServedDetector(network).to(next(network.parameters()).device).eval()
        try:
            return [list(self._detect(detector, one)) for one in self.sets]
        finally:
            network.train(was_training)
            torch.backends.cudnn.benchmark = searches

    def score(self, metrics: Sequence[Metrics]) -> float | None:
        """The weighted mean AP of the sets, where the default weight is 1; None without sets."""
        weights = [1.0 if one.source.weight is None else one.source.weight for one in self.sets]
        if not sum(weights):
            return None
        return sum(weight * one.ap for weight, one in zip(weights, metrics, strict=True)) / sum(weights)

    def _detect(self, detector: ServedDetector, one: ValidationSet) -> Iterator[Detections]:
        """Detections of every image in order, with a progress bar."""
        return progress(
            self._detections(detector, one),
            total=len(one.sizes_px),
            description=f"validate {one.source.name}",
            unit="images",
        )

    def _detections(self, detector: ServedDetector, one: ValidationSet) -> Iterator[Detections]:
        """Detections of every image in order; processes post-process one batch while the network runs the next."""
        in_flight: deque[Future[Detections]] = deque()
        for start in range(0, len(one.sizes_px), _BATCH):
            with torch.no_grad():
                loc, conf = (raw.cpu() for raw in detector(one.pixels[start : start + _BATCH]))
            if self._pool is not None:
                # Tensors in shared memory reach other processes without a copy.
                loc, conf = loc.share_memory_(), conf.share_memory_()
            for index, size_px in enumerate(one.sizes_px[start : start + _BATCH]):
                if self._pool is None:
                    yield _postprocess(loc[index], conf[index], size_px)
                else:
                    in_flight.append(self._pool.submit(_postprocess, loc[index], conf[index], size_px))
            while len(in_flight) > _BATCHES_IN_FLIGHT * _BATCH:
                yield in_flight.popleft().result()
        while in_flight:
            yield in_flight.popleft().result()


def figures(one: ValidationSet, detections: Sequence[Detections]) -> Metrics:
    """Figures of the detections in a set's images."""
    results: list[CocoResult] = []
    for image, found in zip(one.dataset.images, detections, strict=True):
        results += found.to_coco(image.id, one.dataset.category_ids)
    return evaluate(one.dataset, results)


def _postprocess(loc: Tensor, conf: Tensor, size_px: tuple[int, int]) -> Detections:
    return postprocess(loc.numpy(), conf.numpy(), size_px, PostprocessParameters())
