"""The post-processing as an ONNX graph of standard operators: it runs wherever ONNX Runtime does.

The graph follows :func:`ssd_triton.detector.postprocessing.reference.postprocess` and is checked against it. Per-class
candidate lists become the batch dimension of NonMaxSuppression, so that one operator call serves all images and
classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxscript
from onnxscript import ir

from ssd_triton.common.arrays import FloatArray
from ssd_triton.common.files import atomic_output
from ssd_triton.detector.export.compare import TensorType, check_interface, run_onnx
from ssd_triton.detector.export.onnx_export import MAX_IR_VERSION, OPSET, checked_model
from ssd_triton.detector.network.boxes import CENTER_VARIANCE, NUM_DEFAULT_BOXES, SIZE_VARIANCE, default_boxes_cxcywh
from ssd_triton.detector.postprocessing.parameters import PostprocessParameters
from ssd_triton.detector.postprocessing.reference import check_detections

Value = Any
"""A tensor of the graph, ``onnxscript.ir.Value``; onnxscript's types are not checked here."""
Op = Any
"""``onnxscript.OpBuilder``: its methods are ONNX operators; each call adds a node and returns its outputs."""
_Interface = Mapping[str, TensorType]


def export_postprocess(path: Path, num_labels: int, parameters: PostprocessParameters) -> None:
    """Write the post-processing graph once its detections equal those of the NumPy reference.

    Args:
        path: The file to write; an older file is kept until the new one has passed the check.
        num_labels: Classes, background included.
        parameters: Thresholds.

    Raises:
        ExportError: The graph's interface or its detections differ from the reference.
    """
    inputs, outputs = _interface(num_labels, parameters)
    with atomic_output(path) as temporary:
        onnx.save_model(build_postprocess(num_labels, parameters), temporary)
        check_interface(temporary, inputs=inputs, outputs=outputs)
        check_detections(lambda arrays: run_onnx(temporary, arrays), num_labels, parameters)


def build_postprocess(num_labels: int, parameters: PostprocessParameters) -> onnx.ModelProto:
    """Build the graph, from raw predictions to padded detections.

    Inputs: ``loc`` FP32 [N, 4, 8732], ``conf`` FP32 [N, num_labels, 8732] and ``original_size`` INT32 [N, 2]: width and
    height in pixels. Outputs, with K = ``detections_per_img``: ``num_detections`` INT32 [N, 1], ``detection_boxes``
    FP32 [N, K, 4] (xyxy, pixels), ``detection_scores`` FP32 [N, K] and ``detection_classes`` INT32 [N, K]; zeros beyond
    ``num_detections``.
    """

    def trace(op: Op, loc: Value, conf: Value, original_size: Value) -> tuple[Value, ...]:
        classes, k = num_labels - 1, parameters.topk_candidates
        scores, boxes = _candidates(op, conf, _decode(op, loc), classes, k)
        scores = op.Reshape(_suppress(op, scores, boxes, parameters), [-1, classes * k])
        boxes = op.Reshape(boxes, [-1, classes * k, 4])
        return _select(op, scores, boxes, original_size, parameters)

    inputs, outputs = _interface(num_labels, parameters)
    graph = onnxscript.build_graph(
        trace, _values(inputs), _values(outputs), opset_imports={"": OPSET}, name="ssd_postprocess"
    )
    return checked_model(ir.to_proto(ir.Model(graph, ir_version=MAX_IR_VERSION, producer_name="ssd_triton")))


def _interface(num_labels: int, parameters: PostprocessParameters) -> tuple[_Interface, _Interface]:
    """Inputs and outputs by name: dtype and shape; the batch is dynamic."""
    n, fp32, int32 = parameters.detections_per_img, np.dtype(np.float32), np.dtype(np.int32)
    inputs: _Interface = {
        "loc": (fp32, (None, 4, NUM_DEFAULT_BOXES)),
        "conf": (fp32, (None, num_labels, NUM_DEFAULT_BOXES)),
        "original_size": (int32, (None, 2)),
    }
    outputs: _Interface = {
        "num_detections": (int32, (None, 1)),
        "detection_boxes": (fp32, (None, n, 4)),
        "detection_scores": (fp32, (None, n)),
        "detection_classes": (int32, (None, n)),
    }
    return inputs, outputs


def _values(interface: _Interface) -> list[Value]:
    return [
        ir.val(name, ir.DataType.from_numpy(dtype), ["batch" if size is None else size for size in shape])
        for name, (dtype, shape) in interface.items()
    ]


def _decode(op: Op, loc: Value) -> Value:
    """``loc`` [N, 4, 8732] -> boxes [N, 8732, 4], xyxy, fractions of the image."""
    defaults = default_boxes_cxcywh()
    center_offset, size_offset = op.Split(op.Transpose(loc, perm=[0, 2, 1]), axis=2, num_outputs=2, _outputs=2)
    moved = op.Mul(center_offset, _constant("center_scale", np.float32(CENTER_VARIANCE) * defaults[:, 2:]))
    center = op.Add(moved, _constant("default_center", defaults[:, :2]))
    growth = op.Exp(op.Mul(size_offset, SIZE_VARIANCE))
    half_size = op.Mul(growth, _constant("default_half_size", defaults[:, 2:] / 2))
    return op.Concat(op.Sub(center, half_size), op.Add(center, half_size), axis=2)


def _constant(name: str, value: FloatArray) -> Any:
    return ir.tensor(value, name=name)


def _candidates(op: Op, conf: Value, boxes: Value, classes: int, k: int) -> tuple[Value, Value]:
    """The best k boxes of each class: scores [N * classes, k] and boxes [N * classes, k, 4].

    TopK puts the lower index first among equal scores, as the reference's stable sort does.
    """
    foreground = op.Slice(op.Softmax(conf, axis=1), [1], [classes + 1], [1])
    scores, indices = op.TopK(foreground, [k], axis=2, _outputs=2)
    indices = op.Reshape(indices, [0, classes * k, 1])
    gathered = op.GatherND(boxes, indices, batch_dims=1)
    return op.Reshape(scores, [-1, k]), op.Reshape(gathered, [-1, k, 4])


def _suppress(op: Op, scores: Value, boxes: Value, parameters: PostprocessParameters) -> Value:
    """Scores [N * classes, k], set to 0 for candidates that are suppressed or below the threshold.

    The operator suppresses at IoU > threshold, the protocol at IoU >= threshold; therefore the next smaller number is
    used. The operator expects boxes as y, x, y, x; swapping the axes of all boxes does not change any IoU.
    """
    just_below = float(np.nextafter(np.float32(parameters.nms_thresh), np.float32(0)))
    selected = op.NonMaxSuppression(
        boxes,
        op.Unsqueeze(scores, [1]),
        [parameters.topk_candidates],
        [just_below],
        [parameters.score_thresh],
    )
    row_and_candidate = op.Gather(selected, [0, 2], axis=1)
    zeros = op.ConstantOfShape(op.Shape(scores))
    return op.ScatterND(zeros, row_and_candidate, op.GatherND(scores, row_and_candidate))


def _select(
    op: Op, scores: Value, boxes: Value, original_size: Value, parameters: PostprocessParameters
) -> tuple[Value, ...]:
    """The best of the candidates of each image, in pixels and padded with zeros, in the order of the outputs.

    Args:
        op: Adds the nodes.
        scores: [N, classes * k]; 0 is no detection.
        boxes: [N, classes * k, 4], fractions of the image.
        original_size: INT32 [N, 2], width and height in pixels.
        parameters: Thresholds.
    """
    scores, indices = op.TopK(scores, [parameters.detections_per_img], axis=1, _outputs=2)
    found = op.Greater(scores, 0.0)
    found_int = op.Cast(found, to=ir.DataType.INT32)
    class_ids = op.Add(op.Div(indices, parameters.topk_candidates), 1)
    boxes = op.GatherND(boxes, op.Unsqueeze(indices, [2]), batch_dims=1)
    size_px = op.Cast(original_size, to=ir.DataType.FLOAT)
    to_pixels = op.Unsqueeze(op.Concat(size_px, size_px, axis=1), [1])
    found_mask = op.Unsqueeze(op.Cast(found, to=ir.DataType.FLOAT), [2])
    return (
        op.ReduceSum(found_int, [1], keepdims=1),
        op.Mul(op.Mul(boxes, to_pixels), found_mask),
        scores,
        op.Mul(op.Cast(class_ids, to=ir.DataType.INT32), found_int),
    )
