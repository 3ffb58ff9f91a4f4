"""Detectors for labelling: a described TorchScript or ONNX model, or the project's own model on a server."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from ssd_triton.client import DetectorClient, RequestRefusedError
from ssd_triton.common.arrays import AnyArray, FloatArray
from ssd_triton.common.detections import Detections
from ssd_triton.common.errors import ImageError
from ssd_triton.common.files import relative_to_cwd, sha256_of
from ssd_triton.common.in_flight import submit_ahead
from ssd_triton.evaluation.fingerprint import served_models
from ssd_triton.media.decoding import open_rgb
from ssd_triton.media.images import read_image, read_served
from ssd_triton.training.errors import TrainingError
from ssd_triton.training.labelling.decoding import decode
from ssd_triton.training.labelling.description import InputFormat, read_description

_DECODING_THREADS = 4
Run = Callable[[FloatArray], Sequence[AnyArray]]
"""Runs the network on FP32 [N, 3, H, W]; returns the outputs in the network's order."""
Answer = Detections | str
"""A detector's detections with the names of their classes, or why the image cannot be read."""


class Labeller(Protocol):
    """Detects in image files.

    Attributes:
        labels: Names of its classes, the background first.
        fingerprint: JSON values that its answers depend on.
    """

    labels: tuple[str, ...]
    fingerprint: dict[str, object]

    def detect(self, paths: Iterable[Path], score_thresh: float) -> Iterator[tuple[Path, Answer]]:
        """Yield every file with the detections in it from this score on, in order."""


class ServedLabeller:
    """The model that a server serves."""

    def __init__(self, client: DetectorClient, labels: tuple[str, ...]) -> None:
        """Take a client of a ready server and the names of its classes."""
        self.labels, self._client = labels, client
        self.fingerprint: dict[str, object] = {"served": served_models(client, "ssd"), "labels": list(labels)}

    def detect(self, paths: Iterable[Path], score_thresh: float) -> Iterator[tuple[Path, Answer]]:
        """See :class:`Labeller`."""
        with ThreadPoolExecutor(_DECODING_THREADS) as pool:
            in_flight = self._client.in_flight
            for path, future in submit_ahead(paths, lambda path: pool.submit(self._ask, path), in_flight):
                answer = future.result()
                yield path, answer if isinstance(answer, str) else answer.filter(score_thresh=score_thresh)

    def _ask(self, path: Path) -> Answer:
        try:
            return self._client.detect(read_served(path))
        except (ImageError, RequestRefusedError) as error:
            return str(error)


class DescribedLabeller:
    """A TorchScript or ONNX model with a description."""

    def __init__(self, path: Path, device: str) -> None:
        """Load the model and try it on a grey image.

        Args:
            path: The description.
            device: PyTorch's name of the device for TorchScript; ONNX runs on the CPU.

        Raises:
            TrainingError: The model cannot be loaded or run, or the description does not fit it.
        """
        self._description = read_description(path)
        self._name = relative_to_cwd(path)
        self.labels = ("background", *self._description.classes)
        self.fingerprint: dict[str, object] = {
            "description": self._description.model_dump(mode="json", exclude={"file", "batch"}),
            "model_sha256": sha256_of(self._description.file),
        }
        self._run = _load(self._description.file, device)
        self._find([np.full((self._description.input.height_px, self._description.input.width_px, 3), 128, np.uint8)])

    def detect(self, paths: Iterable[Path], score_thresh: float) -> Iterator[tuple[Path, Answer]]:
        """See :class:`Labeller`."""
        ahead = self._description.batch + _DECODING_THREADS
        with ThreadPoolExecutor(_DECODING_THREADS) as pool:
            batch: list[tuple[Path, _Loaded | str]] = []
            for path, future in submit_ahead(paths, lambda path: pool.submit(self._read, path), ahead):
                batch.append((path, future.result()))
                if len(batch) == self._description.batch:
                    yield from self._answers(batch, score_thresh)
                    batch = []
            yield from self._answers(batch, score_thresh)

    def _read(self, path: Path) -> _Loaded | str:
        try:
            image = open_rgb(read_image(path), path.name)
        except ImageError as error:
            return str(error)
        return _Loaded(*_fit(image, self._description.input), image.size)

    def _answers(
        self, batch: Sequence[tuple[Path, _Loaded | str]], score_thresh: float
    ) -> Iterator[tuple[Path, Answer]]:
        loaded = [one for _, one in batch if not isinstance(one, str)]
        found = iter(self._find([one.pixels for one in loaded], score_thresh))
        for path, one in batch:
            yield path, one if isinstance(one, str) else one.in_original(next(found), self.labels)

    def _find(self, pixels: Sequence[AnyArray], score_thresh: float = 0.5) -> list[Detections]:
        if not pixels:
            return []
        batch = _normalised(np.stack(pixels), self._description.input)
        if self._description.mirror:
            batch = np.concatenate([batch, batch[..., ::-1]])
        try:
            outputs = self._run(np.ascontiguousarray(batch))
        # PyTorch and ONNX Runtime raise their own errors when a model refuses its input.
        except RuntimeError as error:
            raise TrainingError(
                f"{self._name}: the model refuses an input of {list(batch.shape)} ({str(error).splitlines()[0]}); "
                "correct 'input'"
            ) from error
        try:
            found = decode(outputs, self._description, score_thresh)
        except TrainingError as error:
            raise TrainingError(f"{self._name}: {error}") from None
        most = max((int(classes.max(initial=-1)) for _, _, classes in found), default=-1)
        if most >= len(self.labels) - 1:
            raise TrainingError(
                f"{self._name}: the model answers with class {most} from 0, expected fewer than the "
                f"{len(self.labels) - 1} of 'classes'; correct 'classes' or 'first_class'"
            )
        return [Detections(boxes, scores, classes + np.int32(1)) for boxes, scores, classes in found]


class _Loaded:
    """An image in the size of a network's input, and the conversion of boxes back to the original.

    Attributes:
        pixels: UINT8 [H, W, 3], RGB.
    """

    def __init__(self, pixels: AnyArray, ratio: tuple[float, float], size_px: tuple[int, int]) -> None:
        self.pixels, self._ratio, self._size_px = pixels, ratio, size_px

    def in_original(self, found: Detections, labels: tuple[str, ...]) -> Detections:
        """Bring boxes back to pixels of the original, and cut them at its border."""
        boxes = found.boxes_xyxy / np.array([*self._ratio, *self._ratio], np.float32)
        return Detections(boxes, found.scores, found.class_ids, labels=labels).clipped(self._size_px)


def _fit(image: Image.Image, size: InputFormat) -> tuple[AnyArray, tuple[float, float]]:
    """Resize as described; returns UINT8 [H, W, 3] RGB, and the scale from the image to the input in x and y."""
    width_px, height_px = size.width_px, size.height_px
    if size.fit == "letterbox":
        ratio = min(width_px / image.width, height_px / image.height)
        width_px, height_px = (max(1, round(side * ratio)) for side in image.size)
    resized = np.asarray(image.resize((width_px, height_px), Image.Resampling.BILINEAR))
    canvas = np.full((size.height_px, size.width_px, 3), size.padding, np.uint8)
    canvas[:height_px, :width_px] = resized
    return canvas, (width_px / image.width, height_px / image.height)


def _normalised(pixels: AnyArray, size: InputFormat) -> FloatArray:
    """UINT8 [N, H, W, 3] RGB -> FP32 [N, 3, H, W]."""
    ordered = pixels if size.colour == "rgb" else pixels[..., ::-1]
    values = (ordered / np.float32(size.scale) - np.array(size.mean, np.float32)) / np.array(size.std, np.float32)
    normalised: FloatArray = values.astype(np.float32).transpose(0, 3, 1, 2)
    return normalised


def _load(file: Path, device: str) -> Run:
    name = relative_to_cwd(file)
    if file.suffix == ".onnx":
        import onnxruntime

        try:
            session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
        # ONNX Runtime's errors have no other common class.
        except Exception as error:
            raise TrainingError(f"{name}: got no ONNX model ({str(error).splitlines()[0]})") from error
        [given] = session.get_inputs()[:1]

        def run_onnx(batch: FloatArray) -> Sequence[AnyArray]:
            try:
                return list(session.run(None, {given.name: batch}))
            except Exception as error:
                raise RuntimeError(str(error)) from error

        return run_onnx
    import torch
    from torch.utils._pytree import tree_leaves

    try:
        module = torch.jit.load(str(file), map_location=device).eval()  # type: ignore[no-untyped-call]
    except (RuntimeError, ValueError) as error:
        raise TrainingError(f"{name}: got no TorchScript ({str(error).splitlines()[0]}); export the model") from error

    def run_torchscript(batch: FloatArray) -> Sequence[AnyArray]:
        with torch.inference_mode():
            outputs = module(torch.from_numpy(batch).to(device))
        return [output.float().cpu().numpy() for output in tree_leaves(outputs)]

    return run_torchscript
