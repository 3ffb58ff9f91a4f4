"""The detector as ONNX: uint8 images in, raw predictions out."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import torch

from ssd_triton.common.arrays import AnyArray
from ssd_triton.common.files import atomic_output
from ssd_triton.detector.export.compare import check_interface, check_values, run_onnx
from ssd_triton.detector.network.boxes import IMAGE_SIZE_PX, NUM_DEFAULT_BOXES
from ssd_triton.detector.network.ssd import ServedDetector, fold_batch_norms, predict

OPSET = 18
MAX_IR_VERSION = 10
"""The newest version that ONNX Runtime 1.19 reads, the one in Triton 24.10."""
MAX_RELATIVE_ERROR_FP32 = 1e-4
"""Relative L2 error allowed between ONNX Runtime and PyTorch, both in FP32."""


def export_detector(detector: ServedDetector, path: Path, images_rgb: AnyArray) -> dict[str, float]:
    """Write an FP32 ONNX file with a dynamic batch size once its outputs equal those of the PyTorch detector.

    Args:
        detector: In FP32 and evaluation mode; it is not changed.
        path: The file to write; an older file is kept until the new one has passed the check.
        images_rgb: UINT8 [N, 300, 300, 3], N >= 2, real images for the check.

    Returns:
        Relative L2 error of each output.

    Raises:
        ExportError: The ONNX model's interface or values differ; every difference is named.
    """
    num_labels = detector.network.num_labels
    with atomic_output(path) as temporary:
        model = _to_onnx(detector)
        onnx.save_model(model, temporary)
        check_interface(
            temporary,
            inputs={"image": (np.dtype(np.uint8), (None, IMAGE_SIZE_PX, IMAGE_SIZE_PX, 3))},
            outputs={
                "loc": (np.dtype(np.float32), (None, 4, NUM_DEFAULT_BOXES)),
                "conf": (np.dtype(np.float32), (None, num_labels, NUM_DEFAULT_BOXES)),
            },
        )
        loc, conf = predict(detector, images_rgb)
        # One image, then all at once: a batch size that tracing has frozen shows only in the second run.
        for n in (1, len(images_rgb)):
            errors = check_values(
                expected={"loc": loc[:n], "conf": conf[:n]},
                got=run_onnx(temporary, {"image": images_rgb[:n]}),
                max_relative_error=MAX_RELATIVE_ERROR_FP32,
                name=f"{path.name} at batch {n}",
            )
    return errors


def _to_onnx(detector: ServedDetector) -> onnx.ModelProto:
    """Trace a copy with batch norms folded in FP32: a runtime might fold them at a lower precision."""
    folded = copy.deepcopy(detector)
    fold_batch_norms(folded)
    example = torch.randint(0, 256, (2, IMAGE_SIZE_PX, IMAGE_SIZE_PX, 3), dtype=torch.uint8)
    with _quiet_exporter():
        program = torch.onnx.export(
            folded,
            (example,),
            input_names=["image"],
            output_names=["loc", "conf"],
            dynamic_shapes={"image": {0: torch.export.Dim("batch", min=1, max=1024)}},
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    if program is None:
        raise RuntimeError("torch.onnx.export returned nothing")
    return checked_model(program.model_proto)


def checked_model(model: onnx.ModelProto) -> onnx.ModelProto:
    """Limit a model's IR version to :data:`MAX_IR_VERSION`, drop its nodes' metadata, and check it; in place.

    Raises:
        onnx.checker.ValidationError: The model is not valid ONNX.
    """
    model.ir_version = min(model.ir_version, MAX_IR_VERSION)
    for node in model.graph.node:
        del node.metadata_props[:]  # stack traces, with the paths of the machine that exported
    onnx.checker.check_model(model, full_check=True)
    return model


@contextlib.contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Suppress the exporter's progress messages and warnings, not its exceptions."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore", category=DeprecationWarning)
            warnings.simplefilter("ignore", category=FutureWarning)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
