"""From weights to what is served: quantisation, engines, and what their accuracy must be."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import Field

from ssd_triton.config.section import Seconds, Section

BackboneName = Literal["resnet18", "resnet34", "resnet50", "resnet101", "resnet152"]
BACKBONE_NAMES: tuple[str, ...] = get_args(BackboneName)

CalibrationMethod = Literal["minmax", "percentile", "entropy"]
CALIBRATION_METHODS: tuple[CalibrationMethod, ...] = get_args(CalibrationMethod)
WeightBits = Literal[7, 8]

RuntimeName = Literal["tensorrt", "tensorrt-rtx"]
RUNTIME_NAMES: tuple[RuntimeName, ...] = get_args(RuntimeName)

ImageSet = Literal["all", "annotated"]
IMAGE_SETS: tuple[ImageSet, ...] = get_args(ImageSet)


class QuantizationConfig(Section):
    """How the INT8 variant is calibrated (``tools/quantize_onnx.py``); AP is in [0, 1]."""

    method: CalibrationMethod
    weight_bits: WeightBits
    num_images: Annotated[int, Field(ge=1, le=100_000)]
    images: Path | None
    evaluation_images: Path | None
    evaluation_annotations: Path | None
    num_evaluation_images: Annotated[int, Field(ge=1)]
    max_ap_loss: Annotated[float, Field(ge=0, le=1)]
    max_layer_error: Annotated[float, Field(gt=0)]


class ProfileConfig(Section):
    """Images in a batch that an engine takes: fewest, the number it is tuned for, most."""

    min: Annotated[int, Field(ge=1)]
    opt: Annotated[int, Field(ge=1)]
    max: Annotated[int, Field(ge=1)]


class TensorRTConfig(Section):
    """How ``tools/build_engine.py`` builds; the timing cache is for TensorRT only, TensorRT-RTX has none."""

    runtime: RuntimeName
    profile: ProfileConfig
    builder_optimization_level: Annotated[int, Field(ge=0, le=5)]
    workspace_mib: Annotated[int, Field(ge=1)]
    tf32: bool
    timing_cache: Path | None


class ParityConfig(Section):
    """Relative L2 errors of raw outputs that ``tools/check_parity.py`` allows, by precision."""

    fp32: Annotated[float, Field(gt=0)]
    fp16: Annotated[float, Field(gt=0)]


class CocoConfig(Section):
    """How ``clients/coco_eval.py`` evaluates; ``config.yml`` says what each key means."""

    coco_data_path: Path | None
    output: Path
    image_set: ImageSet
    limit: Annotated[int, Field(ge=1)] | None
    in_flight: Annotated[int, Field(ge=1, le=1024)]
    batch: Annotated[int, Field(ge=1, le=64)]
    retry_s: Seconds
    worst_misses: Annotated[int, Field(ge=0, le=1000)]
    name_map: dict[str, str]
