"""The ONNX file that an engine is built from: read, checked, and cast to the types of the engine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError

from ssd_triton.common.files import relative_to_cwd
from ssd_triton.detector.engines.errors import EngineError
from ssd_triton.detector.export.compare import check_interface
from ssd_triton.detector.export.half import to_half
from ssd_triton.detector.network.boxes import IMAGE_SIZE_PX, NUM_DEFAULT_BOXES
from ssd_triton.detector.variants import Precision

IMAGE = "image"
BORDER = frozenset({IMAGE, "loc", "conf"})
"""The network's input and outputs, where an engine may change types."""


def detector_onnx(path: Path, precision: Precision, num_labels: int) -> bytes:
    """Read the detector as serialised ONNX whose types are those of the precision.

    Args:
        path: UINT8 [N, 300, 300, 3] in; FP32 [N, 4, 8732] and [N, num_labels, 8732] out.
        precision: ``fp32`` and ``int8`` take the file as it is; ``fp16`` casts an FP32 file.
        num_labels: Classes, the background included.

    Raises:
        EngineError: The file is missing, is not ONNX, or has another precision.
        ExportError: Its interface differs, or a weight does not fit FP16.
    """
    name = relative_to_cwd(path)
    try:
        model = onnx.load(path)
    except OSError as error:
        raise EngineError(f"cannot read {name} ({error.strerror}): make it with ssd-triton build") from error
    except DecodeError as error:
        raise EngineError(f"{name} is not an ONNX file ({error}): make it with ssd-triton build") from error
    check_interface(
        path,
        inputs={IMAGE: (np.dtype(np.uint8), (None, IMAGE_SIZE_PX, IMAGE_SIZE_PX, 3))},
        outputs={
            "loc": (np.dtype(np.float32), (None, 4, NUM_DEFAULT_BOXES)),
            "conf": (np.dtype(np.float32), (None, num_labels, NUM_DEFAULT_BOXES)),
        },
    )
    found = _precision_of(model)
    if precision == "fp16" and found == "fp32":
        model, found = to_half(model), "fp16"
    if found != precision:
        expected = "one with QuantizeLinear nodes" if precision == "int8" else "the FP32 file"
        raise EngineError(
            f"{name} is {found.upper()}, expected {expected} for {precision.upper()}: give it with --onnx"
        )
    serialized: bytes = model.SerializeToString()
    return serialized


def _precision_of(model: onnx.ModelProto) -> Precision:
    """The precision in which a strongly typed build of the model would run."""
    if any(node.op_type == "QuantizeLinear" for node in model.graph.node):
        return "int8"
    is_half = any(tensor.data_type == onnx.TensorProto.FLOAT16 for tensor in model.graph.initializer)
    return "fp16" if is_half else "fp32"
