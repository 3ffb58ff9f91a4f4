"""The layers of a TensorRT engine, and the types that they read and write.

The text is what TensorRT's ``EngineInspector`` prints in its one-line format with detailed profiling verbosity. The
builder logs the same text, so that an engine can be inspected where it is built. The inspector itself must deserialise
the engine, which needs the GPU it was built for.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict

from ssd_triton.detector.engines.errors import EngineError

_LAYER = re.compile(
    r"^\s*Name: (?P<name>.*?), LayerType: (?P<kind>.*?), Inputs: \[(?P<inputs>.*)\], (?:Weights: .*?, )?"
    r"Constants: \[(?P<constants>.*)\], Outputs: \[(?P<outputs>.*)\], TacticName: (?P<rest>.*)$"
)
_TENSOR = re.compile(r"\{ Name: (?P<name>.*?), .*?Datatype: (?P<dtype>\w+)")
_ONNX_NODE = re.compile(r"\[ONNX Layer: (.*?)\]")
_CONVOLUTION_KINDS = ("correlation", "convolution", "runtime_fusion", "gemm")
"""TensorRT's names of layers that multiply matrices, in lower case: ``correlation`` for convolutions and
``runtime_fusion`` for 1x1 convolutions as seen in TensorRT-RTX 1.7; the others in TensorRT 10."""
_BOOKKEEPING_KINDS = ("signal", "wait", "shape_call")
"""Synchronisation of streams, and shapes on the host: no tensor passes through them."""


class EngineTensor(BaseModel):
    """A tensor of the engine: its name, and TensorRT's name of its type (``Float``, ``Half``, ``Int8``, ``UInt8``)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    dtype: str


class EngineLayer(BaseModel):
    """One kernel launch of the engine.

    ``kind`` is TensorRT's layer type; the first of ``constants`` is the weights of a convolution; ``onnx_nodes`` are
    the nodes that the layer was fused from.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    kind: str
    inputs: tuple[EngineTensor, ...]
    constants: tuple[EngineTensor, ...]
    outputs: tuple[EngineTensor, ...]
    onnx_nodes: tuple[str, ...]

    @property
    def is_convolution(self) -> bool:
        """Whether the layer multiplies matrices, by its kind."""
        return any(kind in self.kind.lower() for kind in _CONVOLUTION_KINDS)

    @property
    def converts(self) -> bool:
        """Whether the layer is not a convolution and writes a type that it does not read."""
        if self.is_convolution:
            return False
        return not {tensor.dtype for tensor in self.outputs} <= {tensor.dtype for tensor in self.inputs}


@dataclass(frozen=True)
class EngineReport:
    """The layers of an engine in order of execution, without bookkeeping."""

    layers: tuple[EngineLayer, ...]

    @property
    def convolutions(self) -> tuple[EngineLayer, ...]:
        """Layers that multiply matrices."""
        return tuple(layer for layer in self.layers if layer.is_convolution)

    def convolution_types(self) -> Counter[str]:
        """Count convolutions by the type of both activations and weights, or ``mixed``."""
        counts: Counter[str] = Counter()
        for layer in self.convolutions:
            types = {tensor.dtype for tensor in (*layer.inputs[:1], *layer.constants[:1])}
            counts[types.pop() if len(types) == 1 else "mixed"] += 1
        return counts

    def inner_conversions(self, border: frozenset[str]) -> tuple[EngineLayer, ...]:
        """Return layers that change the type of a tensor and do not touch the network's inputs and outputs.

        Args:
            border: Names of the network's inputs and outputs.
        """
        return tuple(
            layer
            for layer in self.layers
            if layer.converts and border.isdisjoint(tensor.name for tensor in (*layer.inputs, *layer.outputs))
        )

    def table(self) -> str:
        """Format the number of layers by kind and types, one row each, most frequent first."""
        rows = Counter(
            (
                layer.kind,
                _types(layer.inputs),
                _types(layer.constants[:1]) if layer.is_convolution else "",
                _types(layer.outputs),
            )
            for layer in self.layers
        )
        lines = [f"{'layers':>6}  {'kind':<16}{'reads':<14}{'weights':<9}writes"]
        for (kind, reads, weights, writes), count in rows.most_common():
            lines.append(f"{count:>6}  {kind:<16}{reads:<14}{weights:<9}{writes}".rstrip())
        return "\n".join(lines)


def parse_layers(text: str) -> tuple[EngineLayer, ...]:
    """Read the layers out of an inspector's one-line text.

    Raises:
        EngineError: It has no layer, or a layer in an unknown format.
    """
    lines = [line for line in text.splitlines() if "LayerType: " in line]
    layers = []
    for line in lines:
        match = _LAYER.match(line)
        if match is None:
            raise EngineError(f"cannot read the engine's layer '{line.strip()[:80]}': TensorRT's text has a new form")
        if match["kind"] not in _BOOKKEEPING_KINDS:
            layers.append(
                EngineLayer(
                    name=match["name"],
                    kind=match["kind"],
                    inputs=_tensors(match["inputs"]),
                    constants=_tensors(match["constants"]),
                    outputs=_tensors(match["outputs"]),
                    onnx_nodes=tuple(_ONNX_NODE.findall(match["rest"])),
                )
            )
    if not layers:
        raise EngineError("TensorRT reported no layers of the engine, expected detailed profiling verbosity")
    return tuple(layers)


def _tensors(text: str) -> tuple[EngineTensor, ...]:
    return tuple(EngineTensor(name=match["name"], dtype=match["dtype"]) for match in _TENSOR.finditer(text))


def _types(tensors: tuple[EngineTensor, ...]) -> str:
    return "+".join(sorted({tensor.dtype for tensor in tensors}))
