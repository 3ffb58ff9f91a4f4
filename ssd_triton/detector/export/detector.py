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
"""The newest that ONNX Runtime 1.19 reads, which Triton 24.10 holds."""
MAX_RELATIVE_ERROR_FP32 = 1e-4
"""Relative L2 error allowed between ONNX Runtime and PyTorch, both in FP32."""


def export_detector(detector: ServedDetector, path: Path, images_rgb: AnyArray) -> dict[str, float]:
    """Write an FP32 ONNX file with a dynamic batch, and prove it equal to the PyTorch detector.

    Args:
        detector: In FP32 and evaluation mode; it is not changed.
        path: Where the file goes; an older file stays in place until the new one has passed its check.
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
        # One image, and all of them at once: a batch size that tracing had frozen shows only in the second.
        for n in (1, len(images_rgb)):
            errors = check_values(
                expected={"loc": loc[:n], "conf": conf[:n]},
                got=run_onnx(temporary, {"image": images_rgb[:n]}),
                max_relative_error=MAX_RELATIVE_ERROR_FP32,
                name=f"{path.name} at batch {n}",
            )
    return errors


def _to_onnx(detector: ServedDetector) -> onnx.ModelProto:
    """Trace a copy whose batch norms are folded in FP32, so that no runtime folds them at a lower precision."""
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
    model: onnx.ModelProto = program.model_proto
    model.ir_version = min(model.ir_version, MAX_IR_VERSION)
    for node in model.graph.node:
        del node.metadata_props[:]  # stack traces, with the paths of the machine that exported
    onnx.checker.check_model(model, full_check=True)
    return model


@contextlib.contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Keep the exporter's progress chatter off the terminal; its exceptions pass."""
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
