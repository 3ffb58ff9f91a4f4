"""The detector in INT8: the FP32 graph with QuantizeLinear/DequantizeLinear (Q/DQ) pairs, for any runtime.

The placement of the pairs determines which operations a runtime can keep in INT8. A pair precedes every quantised
convolution; if a MaxPool precedes the convolution, the pair precedes the MaxPool (it commutes with quantisation). A
residual sum has a pair only on its skip side, so that convolution, sum and ReLU stay one kernel. NVIDIA's TensorRT
guide recommends the same ("Working with Quantized Types", placement of Q/DQ). ONNX Runtime's own quantiser is not used.
It accepts given ranges, but replaces a tensor for all its consumers at once: an excluded layer would still read a
quantised input.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

from ssd_triton.common.arrays import AnyArray, FloatArray
from ssd_triton.common.errors import listing
from ssd_triton.common.files import atomic_output, relative_to_cwd
from ssd_triton.detector.export.compare import Arrays, TensorType, check_interface, check_values, run_onnx
from ssd_triton.detector.quantization.ranges import CalibrationError, CalibrationRanges

MAX_LEVEL = 127
"""Largest level of activations: INT8 without -128, symmetric as TensorRT demands."""
_MAX_WEIGHT_LEVEL = {8: MAX_LEVEL, 7: 63}
"""Largest level of weights, by their bits.

AVX2 without VNNI adds pairs of UINT8 x INT8 products in saturating INT16 (``vpmaddubsw``): 2 * 255 * 127 overflows its
32,767, 2 * 255 * 63 does not. ONNX Runtime calls this ``reduce_range``.
"""
MAX_RELATIVE_ERROR_INT8 = 0.3
"""Relative L2 error of the raw outputs above which a file counts as broken.

This limit only guards against mistakes. AP decides whether INT8 is accurate enough:
:mod:`ssd_triton.evaluation.sensitivity`.
"""
_ZERO_POINT = "int8_zero_point"
_Consumer = tuple[onnx.NodeProto, int]
"""A node, and the index of one of its inputs."""


def export_int8(
    fp32_onnx: Path, ranges: CalibrationRanges, path: Path, *, exclude: Sequence[str], images_rgb: AnyArray
) -> dict[str, float]:
    """Write the INT8 model, and check its interface and its values against the FP32 one.

    Args:
        fp32_onnx: The FP32 model that :func:`ssd_triton.detector.export.onnx_export.export_detector` wrote.
        ranges: Ranges of its activations.
        path: The file to write; an older file is kept until the new one has passed the check.
        exclude: Names of layers that stay in FP32; see :func:`layer_names`.
        images_rgb: UINT8 [N, 300, 300, 3], N >= 2, real images for the check.

    Returns:
        Relative L2 error of each output, on ONNX Runtime's own CPU provider.

    Raises:
        CalibrationError: The ranges lack a tensor, or ``exclude`` names an unknown layer.
        ExportError: The INT8 model's interface differs, or its values beyond :data:`MAX_RELATIVE_ERROR_INT8`.
    """
    source = onnx.load(fp32_onnx)
    quantized = quantize(source, ranges, exclude=exclude, name=relative_to_cwd(fp32_onnx))
    with atomic_output(path) as temporary:
        onnx.save_model(quantized, temporary)
        check_interface(temporary, inputs=_types(source.graph.input), outputs=_types(source.graph.output))
        # One image, then all at once: a frozen batch size shows only in the second run.
        for n in (1, len(images_rgb)):
            inputs: Arrays = {source.graph.input[0].name: images_rgb[:n]}
            errors = check_values(
                expected=run_onnx(fp32_onnx, inputs),
                got=run_onnx(temporary, inputs),
                max_relative_error=MAX_RELATIVE_ERROR_INT8,
                name=f"{path.name} at batch {n}",
            )
    return errors


def layer_names(model: onnx.ModelProto) -> list[str]:
    """Return the names of the convolutions in graph order: each is its parameter's name without ``.weight``."""
    return [_layer_name(node) for node in model.graph.node if node.op_type == "Conv"]


def activations(model: onnx.ModelProto) -> list[str]:
    """Return the names of the tensors that need a range: those that are quantised when no layer is excluded."""
    return list(_quantized_tensors(model.graph, set(layer_names(model))))


def quantize(
    model: onnx.ModelProto, ranges: CalibrationRanges, *, exclude: Sequence[str], name: str
) -> onnx.ModelProto:
    """Copy a model and insert Q/DQ pairs into the copy.

    Activations: INT8, symmetric, one scale per tensor. Weights: INT8, symmetric, one scale per output channel, stored
    as INT8 (of which only 7 bits may be used) in front of a DequantizeLinear. Everything else stays in FP32.

    Args:
        model: FP32, convolutions with constant weights.
        ranges: Ranges of :func:`activations`.
        exclude: Names of layers that stay in FP32.
        name: Name of the model in error messages.

    Raises:
        CalibrationError: The ranges lack a tensor that must be quantised, or ``exclude`` names an unknown layer.
    """
    known = layer_names(model)
    unknown = sorted(set(exclude) - set(known))
    if unknown:
        raise CalibrationError(
            f"{name} has no layer {listing(unknown)} to exclude, expected some of {listing(known)}; choose them with "
            "'ssd-triton quantize --sensitivity'"
        )
    quantized = onnx.ModelProto()
    quantized.CopyFrom(model)
    graph = quantized.graph
    layers = set(known) - set(exclude)
    consumers = _quantized_tensors(graph, layers)
    missing = [tensor for tensor in consumers if tensor not in ranges.ranges]
    if missing:
        raise CalibrationError(
            f"the calibration ranges do not fit {name}: got none for {len(missing)} of {len(consumers)} tensors: "
            f"{listing(missing)}; measure them with 'ssd-triton quantize --calibrate --images "
            "FOLDER_OF_TRAINING_IMAGES'"
        )
    pairs = _quantize_activations(graph, consumers, ranges)
    weights = _quantize_weights(graph, layers, _MAX_WEIGHT_LEVEL[ranges.weight_bits])
    _rebuild(graph, pairs, weights)
    onnx.checker.check_model(quantized, full_check=True)
    return quantized


def open_session(model: Path | bytes, provider: str) -> onnxruntime.InferenceSession:
    """Open a model with an ONNX Runtime provider on the CPU: 'CPUExecutionProvider' or 'OpenVINOExecutionProvider'."""
    options = {"device_type": "CPU"} if provider == "OpenVINOExecutionProvider" else {}
    return onnxruntime.InferenceSession(model, providers=[(provider, options)])


def _layer_name(conv: onnx.NodeProto) -> str:
    name: str = conv.input[1]
    return name.removesuffix(".weight")


def _quantized_tensors(graph: onnx.GraphProto, layers: set[str]) -> dict[str, list[_Consumer]]:
    """For each tensor to quantise, in graph order: the inputs that will read its quantised value."""
    producers = {output: node for node in graph.node for output in node.output}
    found: dict[str, list[_Consumer]] = {}
    for node in graph.node:
        if node.op_type == "Conv" and _layer_name(node) in layers:
            consumer = (node, 0)
        elif node.op_type == "Add" and (skip := _skip_side(node, producers, layers)) is not None:
            consumer = (node, skip)
        else:
            continue
        tensor = node.input[consumer[1]]
        producer = producers.get(tensor)
        if producer is not None and producer.op_type == "MaxPool":
            tensor, consumer = producer.input[0], (producer, 0)
        if consumer not in found.setdefault(tensor, []):
            found[tensor].append(consumer)
    return found


def _skip_side(add: onnx.NodeProto, producers: dict[str, onnx.NodeProto], layers: set[str]) -> int | None:
    """Index of the skip connection among a residual sum's inputs; None if the other is no quantised convolution."""
    for main, skip in ((0, 1), (1, 0)):
        producer = producers.get(add.input[main])
        if producer is not None and producer.op_type == "Conv" and add.input[skip] in producers:
            return skip if _layer_name(producer) in layers else None
    return None


def _quantize_activations(
    graph: onnx.GraphProto, consumers: dict[str, list[_Consumer]], ranges: CalibrationRanges
) -> dict[str, list[onnx.NodeProto]]:
    """Make the consumers read dequantised values; returns the Q/DQ pair of each tensor."""
    graph.initializer.append(numpy_helper.from_array(np.array(0, np.int8), _ZERO_POINT))
    pairs = {}
    for tensor, readers in consumers.items():
        scale, quantized, dequantized = f"{tensor}_scale", f"{tensor}_quantized", f"{tensor}_dequantized"
        limit = max(abs(bound) for bound in ranges.ranges[tensor])
        graph.initializer.append(numpy_helper.from_array(_scales(np.array(limit), MAX_LEVEL), scale))
        pairs[tensor] = [
            helper.make_node("QuantizeLinear", [tensor, scale, _ZERO_POINT], [quantized], quantized),
            helper.make_node("DequantizeLinear", [quantized, scale, _ZERO_POINT], [dequantized], dequantized),
        ]
        for node, index in readers:
            node.input[index] = dequantized
    return pairs


def _quantize_weights(graph: onnx.GraphProto, layers: set[str], max_level: int) -> list[onnx.NodeProto]:
    """Store the layers' weights [out, in, h, w] as INT8; returns the nodes that dequantise them."""
    initializers = {initializer.name: initializer for initializer in graph.initializer}
    nodes = []
    for node in graph.node:
        if node.op_type != "Conv" or _layer_name(node) not in layers:
            continue
        stored = initializers[node.input[1]]
        weight = numpy_helper.to_array(stored)
        scales = _scales(np.abs(weight).max(axis=(1, 2, 3)), max_level)
        levels = np.rint(weight / scales[:, np.newaxis, np.newaxis, np.newaxis])
        name = stored.name
        stored.CopyFrom(numpy_helper.from_array(np.clip(levels, -max_level, max_level).astype(np.int8), name))
        graph.initializer.append(numpy_helper.from_array(scales, f"{name}_scale"))
        graph.initializer.append(numpy_helper.from_array(np.zeros(len(scales), np.int8), f"{name}_zero_point"))
        inputs = [name, f"{name}_scale", f"{name}_zero_point"]
        nodes.append(
            helper.make_node("DequantizeLinear", inputs, [f"{name}_dequantized"], f"{name}_dequantized", axis=0)
        )
        node.input[1] = f"{name}_dequantized"
    return nodes


def _scales(limits: AnyArray, max_level: int) -> FloatArray:
    """FP32 scales of symmetric ranges; 1 where all values are 0, since a scale must be positive."""
    return np.where(limits > 0, limits / max_level, 1.0).astype(np.float32)


def _rebuild(graph: onnx.GraphProto, pairs: dict[str, list[onnx.NodeProto]], weights: list[onnx.NodeProto]) -> None:
    """Insert the new nodes in topological order: each pair directly after the node that it reads."""

    def ordered() -> Iterator[onnx.NodeProto]:
        yield from weights
        for graph_input in graph.input:
            yield from pairs.get(graph_input.name, ())
        for node in graph.node:
            yield node
            for output in node.output:
                yield from pairs.get(output, ())

    nodes = list(ordered())
    del graph.node[:]
    graph.node.extend(nodes)
    # The recorded types are wrong for tensors in INT8; runtimes infer them again.
    del graph.value_info[:]


def _types(tensors: Sequence[onnx.ValueInfoProto]) -> dict[str, TensorType]:
    """Dtype and shape of each tensor, as :func:`ssd_triton.detector.export.compare.check_interface` takes them."""
    return {
        tensor.name: (
            helper.tensor_dtype_to_np_dtype(tensor.type.tensor_type.elem_type),
            tuple(axis.dim_value if axis.HasField("dim_value") else None for axis in tensor.type.tensor_type.shape.dim),
        )
        for tensor in tensors
    }
