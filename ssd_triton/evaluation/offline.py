"""Detection and evaluation without a server: any detector, or a network in batches on a CPU or a GPU."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from ssd_triton.common.detections import Detections
from ssd_triton.common.errors import ImageError
from ssd_triton.common.files import relative_to_cwd
from ssd_triton.common.in_flight import submit_ahead
from ssd_triton.common.progress import progress
from ssd_triton.detector.postprocessing.parameters import PostprocessParameters
from ssd_triton.evaluation.annotations import Image
from ssd_triton.evaluation.dataset import Dataset
from ssd_triton.evaluation.errors import EvaluationError
from ssd_triton.evaluation.metrics import CocoResult, Metrics, evaluate

if TYPE_CHECKING:
    import torch

Detect = Callable[[bytes], Detections]
"""Takes the content of an image file, and returns detections in its pixels."""
_DECODING_THREADS = 4
_Item = TypeVar("_Item")


def evaluate_detector(detect: Detect, dataset: Dataset) -> Metrics:
    """Evaluate any detector, an image at a time.

    Raises:
        EvaluationError: An image is missing or damaged.
    """
    results: list[CocoResult] = []
    for image in _progress(dataset):
        found = _readable(dataset, image, partial(detect, dataset.read(image)))
        results += found.to_coco(image.id, dataset.category_ids)
    return evaluate(dataset, results)


def detect_all(
    network: torch.nn.Module,
    dataset: Dataset,
    device: torch.device,
    batch_size: int,
    parameters: PostprocessParameters | None = None,
) -> Iterator[tuple[Image, Detections]]:
    """Yield every image with its detections, in the dataset's order.

    Args:
        network: On the device and in evaluation mode: UINT8 [N, 300, 300, 3] RGB to ``loc`` [N, 4, 8732] and ``conf``
            [N, num_labels, 8732], as :class:`ssd_triton.detector.network.ssd.ServedDetector`.
        dataset: The images.
        device: Device of the network.
        batch_size: Images in a batch; the last one is smaller.
        parameters: Thresholds; None takes those of the protocol.

    Raises:
        EvaluationError: An image is missing or damaged.
    """
    from ssd_triton.detector.protocol import preprocess

    def load(image: Image) -> Any:
        return _readable(dataset, image, partial(preprocess, dataset.read(image)))

    return detect_each(network, _progress(dataset), load, device, batch_size, parameters=parameters)


def detect_each(
    network: torch.nn.Module,
    items: Iterable[_Item],
    load: Callable[[_Item], Any],
    device: torch.device,
    batch_size: int,
    *,
    parameters: PostprocessParameters | None = None,
) -> Iterator[tuple[_Item, Detections]]:
    """Yield every item with the detections in its image, in order; images are decoded while the network runs.

    Args:
        network: As for :func:`detect_all`.
        items: Whatever ``load`` takes.
        load: Applies :func:`ssd_triton.detector.protocol.preprocess` to an item's image.
        device: Device of the network.
        batch_size: Images in a batch; the last one is smaller.
        parameters: Thresholds; None takes those of the protocol.
    """
    import torch

    from ssd_triton.detector.postprocessing.reference import postprocess

    thresholds = parameters or PostprocessParameters()
    with ThreadPoolExecutor(_DECODING_THREADS) as pool:
        loaded = submit_ahead(items, lambda item: pool.submit(load, item), batch_size + _DECODING_THREADS)
        for batch in _in_batches(loaded, batch_size):
            images, sizes_px = zip(*(future.result() for _, future in batch), strict=True)
            with torch.inference_mode():
                loc, conf = network(torch.from_numpy(np.stack(images)).to(device))
                loc, conf = loc.float().cpu().numpy(), conf.float().cpu().numpy()
            for (item, _), one_loc, one_conf, size_px in zip(batch, loc, conf, sizes_px, strict=True):
                yield item, postprocess(one_loc, one_conf, size_px, thresholds)


def _in_batches(items: Iterator[Any], size: int) -> Iterator[list[Any]]:
    batch = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _progress(dataset: Dataset) -> Iterator[Image]:
    return progress(dataset.images, total=len(dataset.images), description="offline", unit="images")


def _readable(dataset: Dataset, image: Image, call: Callable[[], Any]) -> Any:
    """Call, and turn a damaged image into an EvaluationError."""
    try:
        return call()
    except ImageError as error:
        raise EvaluationError(
            f"{relative_to_cwd(dataset.path(image))}: got no readable image ({error}), expected the one that "
            f"{relative_to_cwd(dataset.source.annotations)} names"
        ) from error
