"""The detector's ONNX graph in FP16: the source of a strongly typed FP16 engine.

Everything from the first convolution on is cast to half. The normalisation before it stays in FP32: in half, the
ImageNet mean times 255 would lose digits, and compilers fuse these few operations into one kernel in either type. The
outputs are cast back to FP32: all precisions share one interface.

The source is the FP32 file, with batch norms folded already: the variance of a batch norm may exceed the largest half,
65,504; the weights into which it is folded do not.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ssd_triton.common.errors import ExportError


def to_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """Cast a copy of an FP32 detector to FP16.

    Args:
        model: Standard operators with FP32 weights, without quantisation or subgraphs; it is not changed.

    Returns:
        A model with the same inputs and outputs; convolutions and all that depends on them are in FP16.

    Raises:
        ExportError: Some weights are not finite in FP16; the message names all of them.
    """
    half_model = onnx.ModelProto()
    half_model.CopyFrom(model)
    graph = half_model.graph
    outputs = {output.name for output in graph.output}
    caster = _Caster({tensor.name: tensor for tensor in graph.initializer})
    for node in list(graph.node):
        caster.add(node, outputs)
    if caster.problems:
        raise ExportError(
            f"these weights do not fit FP16 (largest finite value {np.finfo(np.float16).max:g}): "
            f"{'; '.join(caster.problems)}; serve FP32, or train with smaller weights"
        )
    del graph.node[:]
    graph.node.extend(caster.nodes)
    del graph.value_info[:]  # it has the types of the FP32 graph
    onnx.checker.check_model(half_model, full_check=True)
    return half_model


class _Caster:
    """Collects nodes, added in topological order, and inserts casts where FP32 and FP16 meet."""

    def __init__(self, initializers: dict[str, onnx.TensorProto]) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.problems: list[str] = []
        self._initializers = initializers
        self._half: set[str] = set()

    def add(self, node: onnx.NodeProto, graph_outputs: set[str]) -> None:
        """Append a node, in half if it is a convolution or reads a half tensor."""
        if node.op_type != "Conv" and self._half.isdisjoint(node.input):
            self.nodes.append(node)
            return
        for index, name in enumerate(node.input):
            node.input[index] = self._half_name(name)
        self.nodes.append(node)
        for index, name in enumerate(node.output):
            if name in graph_outputs:
                node.output[index] = f"{name}_half"
                self._cast(f"{name}_half", name, TensorProto.FLOAT)
            self._half.add(node.output[index])

    def _half_name(self, name: str) -> str:
        """Return the name of this tensor in half: a weight is cast in place, an activation through a node."""
        tensor = self._initializers.get(name)
        if name in self._half or (tensor is not None and tensor.data_type != TensorProto.FLOAT):
            return name  # half already, or the shape of a Reshape
        if tensor is None:
            half_name = f"{name}_half"
            if half_name not in self._half:
                self._cast(name, half_name, TensorProto.FLOAT16)
                self._half.add(half_name)
            return half_name
        weight = numpy_helper.to_array(tensor)
        with np.errstate(over="ignore"):
            half = weight.astype(np.float16)
        if not np.isfinite(half).all():
            self.problems.append(f"'{name}' up to {np.abs(weight).max():g}")
        tensor.CopyFrom(numpy_helper.from_array(half, name))
        self._half.add(name)
        return name

    def _cast(self, source: str, target: str, dtype: int) -> None:
        self.nodes.append(helper.make_node("Cast", [source], [target], f"cast_{target}", to=dtype))
