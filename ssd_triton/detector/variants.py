"""The variants of the detector: backend, devices, precision, and required accuracy relative to PyTorch FP32.

A variant is one file for one backend. Its name is the value of ``tritonserver``'s option ``--model-config-name``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from ssd_triton.common.errors import ConfigError

Backend = Literal["onnxruntime", "pytorch", "tensorrt"]
Device = Literal["cpu", "gpu"]
Precision = Literal["fp32", "fp16", "int8"]

_SUFFIXES: dict[Backend, str] = {"onnxruntime": ".onnx", "pytorch": ".pt", "tensorrt": ".plan"}


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One variant.

    Attributes:
        name: Its name.
        backend: Triton's backend.
        precisions: The precision it computes in, by the devices it runs on. On a CPU the embedded server runs PyTorch's
            FP16 files in FP32; only their weights stay rounded to FP16.
        source: The variant whose file this one is built from; None if it is built from the weights.
        max_ap_difference: Largest difference of COCO AP (0 to 1) from PyTorch FP32 through the server, in either
            direction; ``accuracy`` in the configuration overrides it.
        execution_provider: ONNX Runtime's provider that runs it; None for other backends.
        is_fused: Whether convolutions are fused with the following operations, for cuDNN.
    """

    name: str
    backend: Backend
    precisions: Mapping[Device, Precision]
    max_ap_difference: float
    source: str | None = None
    execution_provider: str | None = None
    is_fused: bool = False

    @property
    def file(self) -> str:
        """The name of its file."""
        return self.name + _SUFFIXES[self.backend]

    @property
    def precision(self) -> Precision:
        """The precision of its file, which is also the one it runs in on its main device."""
        return self.precisions["gpu"] if "gpu" in self.precisions else self.precisions["cpu"]

    def precision_on(self, device: Device) -> Precision:
        """The precision it runs in on a device.

        Raises:
            ConfigError: It does not run there.
        """
        if device not in self.precisions:
            others = ", ".join(one.name for one in VARIANTS.values() if device in one.precisions)
            raise ConfigError(f"variant '{self.name}' does not run on a {device.upper()}, expected one of: {others}")
        return self.precisions[device]


_FP32_ON_CPU: dict[Device, Precision] = {"cpu": "fp32", "gpu": "fp16"}

VARIANTS: dict[str, Variant] = {
    variant.name: variant
    for variant in (
        Variant(
            name="onnx_fp32",
            backend="onnxruntime",
            precisions={"cpu": "fp32"},
            max_ap_difference=0.0005,
            execution_provider="CPUExecutionProvider",
        ),
        Variant(
            name="onnx_int8",
            backend="onnxruntime",
            precisions={"cpu": "int8"},
            max_ap_difference=0.005,
            source="onnx_fp32",
            execution_provider="OpenVINOExecutionProvider",
        ),
        Variant(
            name="pytorch_fp32",
            backend="pytorch",
            precisions={"cpu": "fp32", "gpu": "fp32"},
            max_ap_difference=0.0005,
        ),
        Variant(name="pytorch_fp16", backend="pytorch", precisions=_FP32_ON_CPU, max_ap_difference=0.001),
        Variant(
            name="pytorch_fused_fp16",
            backend="pytorch",
            precisions=_FP32_ON_CPU,
            max_ap_difference=0.001,
            is_fused=True,
        ),
        Variant(
            name="tensorrt_fp32",
            backend="tensorrt",
            precisions={"gpu": "fp32"},
            max_ap_difference=0.001,
            source="onnx_fp32",
        ),
        Variant(
            name="tensorrt_fp16",
            backend="tensorrt",
            precisions={"gpu": "fp16"},
            max_ap_difference=0.001,
            source="onnx_fp32",
        ),
        Variant(
            name="tensorrt_int8",
            backend="tensorrt",
            precisions={"gpu": "int8"},
            max_ap_difference=0.005,
            source="onnx_int8",
        ),
    )
}
"""All variants by name. The limits of AP are this project's choice: FP32 and FP16 may change AP by rounding, INT8 by
half a point."""

RECOMMENDED: dict[Device, str] = {"cpu": "onnx_int8", "gpu": "tensorrt_fp16"}
"""The default variant by device: of Triton on a CPU, and of the container image on a GPU. That image has no PyTorch,
which ``pytorch_fused_fp16`` needs."""

BASELINE: dict[Device, str] = {"cpu": "pytorch_fp32", "gpu": "pytorch_fp16"}
"""The variant against which speed-ups are measured, by device."""


def find_variant(name: str) -> Variant:
    """Look a variant up by name.

    Raises:
        ConfigError: There is no such variant.
    """
    if name not in VARIANTS:
        raise ConfigError(f"unknown variant '{name}', expected one of: {', '.join(VARIANTS)}")
    return VARIANTS[name]


def engine_variant(precision: Precision) -> Variant:
    """Return the variant that is a TensorRT engine of a precision."""
    return next(one for one in VARIANTS.values() if one.backend == "tensorrt" and one.precision == precision)


def variant_of_file(file: str) -> Variant | None:
    """Return the variant whose file this is; None for a file that is not in the table."""
    return next((one for one in VARIANTS.values() if one.file == file), None)


def variant_name(file: str) -> str:
    """Return the name of the variant whose file this is, or the file itself where it is not in the table."""
    found = variant_of_file(file)
    return file if found is None else found.name


def with_sources(names: list[str]) -> list[Variant]:
    """Return the variants with these names, each after the one it is built from.

    Raises:
        ConfigError: There is no such variant.
    """
    ordered: dict[str, Variant] = {}
    for name in names:
        variant = find_variant(name)
        for source in with_sources([variant.source]) if variant.source else ():
            ordered[source.name] = source
        ordered[name] = variant
    return list(ordered.values())
