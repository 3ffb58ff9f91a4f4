"""Comparison of an exported model's interface and values with its source; one error reports all differences."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx

from ssd_triton.common.arrays import AnyArray
from ssd_triton.common.errors import ExportError

Arrays = Mapping[str, AnyArray]
TensorType = tuple[np.dtype, tuple[int | None, ...]]  # type: ignore[type-arg]
"""A dtype and a shape; None is a dynamic axis."""


def run_onnx(path: Path, inputs: Arrays) -> dict[str, AnyArray]:
    """Run a model once with ONNX Runtime's own CPU provider; returns its outputs by name."""
    # Imported here: the container that builds engines has no ONNX Runtime for Python, and only checks interfaces.
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(inputs)), strict=True))


def check_interface(path: Path, *, inputs: Mapping[str, TensorType], outputs: Mapping[str, TensorType]) -> None:
    """Check the names, dtypes, shapes and dynamic axes of an ONNX file's inputs and outputs.

    Raises:
        ExportError: Some tensors differ; the message names all of them, with the found and the expected type.
    """
    graph = onnx.load(path, load_external_data=False).graph
    problems = []
    for kind, expected, tensors in (("input", inputs, graph.input), ("output", outputs, graph.output)):
        got = {tensor.name: _tensor_type(tensor) for tensor in tensors}
        problems += [
            f"{kind} '{name}': got {_describe(got.get(name))}, expected {_describe(expected.get(name))}"
            for name in sorted(got.keys() | expected.keys())
            if got.get(name) != expected.get(name)
        ]
    if problems:
        raise ExportError(f"the interface of {path.name} is wrong: {'; '.join(problems)}")


def check_values(expected: Arrays, got: Arrays, max_relative_error: float, name: str) -> dict[str, float]:
    """Compare outputs of two models on identical inputs.

    Returns:
        Relative error of each output: ‖got - expected‖ / ‖expected‖.

    Raises:
        ExportError: An output is missing, has another dtype or shape, is not finite, or differs more; the message names
            all such outputs.
    """
    problems, errors = [], {}
    for key, reference in expected.items():
        value = got.get(key)
        if value is None or value.dtype != reference.dtype or value.shape != reference.shape:
            form = "nothing" if value is None else f"{value.dtype} {list(value.shape)}"
            problems.append(f"'{key}': got {form}, expected {reference.dtype} {list(reference.shape)}")
            continue
        errors[key] = relative_error(value, reference)
        if not errors[key] <= max_relative_error:  # NaN does not pass
            worst = float(np.abs(value - reference).max())
            problems.append(
                f"'{key}': relative error {errors[key]:.2e} (largest difference {worst:.3g}), expected at most "
                f"{max_relative_error:.0e}"
            )
    if problems:
        raise ExportError(f"{name} differs from its source: {'; '.join(problems)}")
    return errors


def relative_error(value: AnyArray, reference: AnyArray) -> float:
    """Return ‖value - reference‖ / ‖reference‖, computed in FP64."""
    difference = np.linalg.norm(value.astype(np.float64) - reference)
    return float(difference / max(float(np.linalg.norm(reference.astype(np.float64))), 1e-30))


def _tensor_type(tensor: onnx.ValueInfoProto) -> TensorType:
    tensor_type = tensor.type.tensor_type
    shape = tuple(axis.dim_value if axis.HasField("dim_value") else None for axis in tensor_type.shape.dim)
    return onnx.helper.tensor_dtype_to_np_dtype(tensor_type.elem_type), shape


def _describe(tensor: TensorType | None) -> str:
    if tensor is None:
        return "nothing"
    return f"{tensor[0]} [{', '.join('dynamic' if size is None else str(size) for size in tensor[1])}]"
