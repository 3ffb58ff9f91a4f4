"""Which layers do not bear INT8: measured layer by layer, and decided by COCO AP.

:func:`layer_errors` quantises one layer at a time and compares the outputs with FP32; :func:`smallest_exclusion` leaves
the most sensitive ones in FP32, as few as the accuracy gate allows. AP is that of pycocotools, by the protocol of
:mod:`ssd_triton.reference`.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

from ssd_triton.arrays import UInt8Array
from ssd_triton.export.compare import relative_error
from ssd_triton.export.quantize import layer_names, open_session, quantize
from ssd_triton.export.ranges import CalibrationError, CalibrationRanges, GateResult, listing
from ssd_triton.files import relative_to_cwd
from ssd_triton.postprocess_parameters import PostprocessParameters
from ssd_triton.reference import postprocess, preprocess

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LayerError:
    """What it costs to quantise one layer alone.

    Attributes:
        layer: Its name.
        loc: Relative L2 error of the output ``loc``.
        conf: Relative L2 error of the output ``conf``.
    """

    layer: str
    loc: float
    conf: float

    @property
    def worst(self) -> float:
        """The larger of the two errors, by which layers are ranked."""
        return max(self.loc, self.conf)


@dataclass(frozen=True)
class EvaluationImages:
    """Images with COCO annotations.

    Attributes:
        folder: Where the images lie.
        annotations: A COCO ``instances_*.json``; category ids map to classes in their sorted order.
        count: How many to use, spread evenly over the sorted ids.
    """

    folder: Path
    annotations: Path
    count: int


def layer_errors(fp32_onnx: Path, ranges: CalibrationRanges, images_rgb: UInt8Array, provider: str) -> list[LayerError]:
    """Quantise each layer alone, and measure the error of the outputs; the most sensitive layer comes first.

    Args:
        fp32_onnx: The FP32 model.
        ranges: Of its activations.
        images_rgb: UINT8 [N, 300, 300, 3], a few training images.
        provider: ONNX Runtime's execution provider.
    """
    source = onnx.load(fp32_onnx)
    name = relative_to_cwd(fp32_onnx)
    expected = _outputs(open_session(fp32_onnx, provider), images_rgb)
    names = layer_names(source)
    found = []
    for index, layer in enumerate(names):
        others = [other for other in names if other != layer]
        alone = quantize(source, ranges, exclude=others, name=name)
        got = _outputs(open_session(alone.SerializeToString(), provider), images_rgb)
        loc, conf = (relative_error(value, reference) for value, reference in zip(got, expected, strict=True))
        found.append(LayerError(layer, loc, conf))
        _log.info("layer %d of %d: %s: loc %.2e, conf %.2e", index + 1, len(names), layer, loc, conf)
    return sorted(found, key=lambda error: -error.worst)


def smallest_exclusion(
    fp32_onnx: Path,
    ranges: CalibrationRanges,
    ranked: Sequence[LayerError],
    images: EvaluationImages,
    *,
    max_ap_loss: float,
    provider: str,
) -> CalibrationRanges:
    """Leave the most sensitive layers in FP32, one more at a time, until INT8 is accurate enough.

    Args:
        fp32_onnx: The FP32 model.
        ranges: Of its activations.
        ranked: Layers, the most sensitive first.
        images: What AP is measured on.
        max_ap_loss: How much lower than in FP32 the AP (0 to 1) may be.
        provider: ONNX Runtime's execution provider.

    Returns:
        The ranges with the exclusion and the AP that decided it.

    Raises:
        CalibrationError: No exclusion passes; or see :func:`average_precision`.
    """
    source = onnx.load(fp32_onnx)
    ap_fp32 = average_precision(open_session(fp32_onnx, provider), images)
    _log.info("FP32: AP %.4f on %d images", ap_fp32, images.count)
    ap_int8 = 0.0
    for count in range(len(ranked)):
        exclude = tuple(error.layer for error in ranked[:count])
        model = quantize(source, ranges, exclude=exclude, name=relative_to_cwd(fp32_onnx))
        ap_int8 = average_precision(open_session(model.SerializeToString(), provider), images)
        _log.info("INT8, %d layers excluded: AP %.4f", count, ap_int8)
        if ap_fp32 - ap_int8 <= max_ap_loss:
            gate = GateResult(
                ap_fp32=round(ap_fp32, 5),
                ap_int8=round(ap_int8, 5),
                num_images=images.count,
                max_ap_loss=max_ap_loss,
                provider=provider,
            )
            return ranges.model_copy(update={"exclude": exclude, "gate": gate})
    raise CalibrationError(
        f"no exclusion of layers passes: got AP {ap_int8:.4f} with one layer in INT8, expected at least "
        f"{ap_fp32 - max_ap_loss:.4f}; calibrate again with another --method or more --num-images"
    )


def average_precision(session: onnxruntime.InferenceSession, images: EvaluationImages) -> float:
    """COCO AP (IoU 0.50 to 0.95, all areas) in [0, 1] of a detector.

    Raises:
        CalibrationError: The annotations or an image cannot be read, or there are fewer images than asked for.
    """
    # pycocotools belongs to the evaluation's dependencies, which building a repository does not need.
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
        truth = COCO()
        truth.dataset = _annotations(images)
        truth.createIndex()
        chosen = _chosen_ids(images, sorted(truth.getImgIds()))
        category_ids = sorted(truth.getCatIds())
        found = [
            detection
            for image in truth.loadImgs(chosen)
            for detection in _detect(session, images.folder / image["file_name"], image["id"], category_ids)
        ]
        if not found:
            return 0.0
        evaluation = COCOeval(truth, truth.loadRes(found), "bbox")
        evaluation.params.imgIds = chosen
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return float(evaluation.stats[0])


def check_evaluation(images: EvaluationImages) -> None:
    """Refuse at once what :func:`average_precision` could not use, since a sensitivity table takes minutes.

    Raises:
        CalibrationError: pycocotools is not installed, the annotations are unreadable or hold too few images, or
            images are missing.
    """
    if find_spec("pycocotools") is None:
        raise CalibrationError("AP needs pycocotools, which is not installed: run \"pip install -e '.[eval]'\"")
    dataset = _annotations(images)
    names = {image["id"]: image["file_name"] for image in dataset["images"]}
    missing = [names[key] for key in _chosen_ids(images, sorted(names)) if not (images.folder / names[key]).is_file()]
    if missing:
        raise CalibrationError(
            f"{relative_to_cwd(images.folder)} lacks {len(missing)} of {images.count} images that "
            f"{relative_to_cwd(images.annotations)} names: {listing(missing)}; give their folder with "
            "--evaluation-images"
        )


def _outputs(session: onnxruntime.InferenceSession, images_rgb: UInt8Array) -> list[np.ndarray]:  # type: ignore[type-arg]
    """``loc`` and ``conf`` of all images; one at a time, since memory is what a large batch costs on a CPU."""
    runs = [session.run(["loc", "conf"], {"image": image[np.newaxis]}) for image in images_rgb]
    return [np.concatenate(values) for values in zip(*runs, strict=True)]


def _annotations(images: EvaluationImages) -> dict[str, Any]:
    name = relative_to_cwd(images.annotations)
    try:
        dataset: dict[str, Any] = json.loads(images.annotations.read_text(encoding="utf-8"))
        missing = {"images", "annotations", "categories"} - dataset.keys()
    except (OSError, ValueError, AttributeError) as error:
        raise CalibrationError(f"cannot read the annotations {name} ({error}); expected a COCO JSON file") from error
    if missing or not dataset["annotations"]:
        lacking = ", ".join(sorted(missing)) or "boxes"
        raise CalibrationError(f"{name} lacks {lacking}; expected a COCO instances_*.json file")
    return dataset


def _chosen_ids(images: EvaluationImages, ids: Sequence[int]) -> list[int]:
    if len(ids) < images.count:
        raise CalibrationError(
            f"got {len(ids)} images in {relative_to_cwd(images.annotations)}, expected {images.count} or more; lower "
            "--num-evaluation-images"
        )
    return [ids[index * len(ids) // images.count] for index in range(images.count)]


def _detect(
    session: onnxruntime.InferenceSession, path: Path, image_id: int, category_ids: Sequence[int]
) -> list[dict[str, object]]:
    """Detections of one image, in COCO's form: boxes as left, top, width, height in pixels."""
    try:
        pixels, size_px = preprocess(path.read_bytes())
    except (OSError, ValueError) as error:
        raise CalibrationError(
            f"{relative_to_cwd(path)}: got no readable image ({error}), expected the one that the annotations name"
        ) from error
    loc, conf = session.run(["loc", "conf"], {"image": pixels[np.newaxis]})
    return [
        {
            "image_id": image_id,
            "category_id": category_ids[class_id - 1],
            "bbox": [float(value) for value in (box[0], box[1], box[2] - box[0], box[3] - box[1])],
            "score": score,
        }
        for box, score, class_id in postprocess(loc[0], conf[0], size_px, PostprocessParameters())
    ]
