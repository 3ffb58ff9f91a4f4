"""From weights to what is served: quantisation, engines, and how accurate they must be."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from ssd_triton.config.section import Fraction, Seconds, Section

BackboneName = Literal["resnet18", "resnet34", "resnet50", "resnet101", "resnet152"]
CalibrationMethod = Literal["minmax", "percentile", "entropy"]
WeightBits = Literal[7, 8]
RuntimeName = Literal["tensorrt", "tensorrt-rtx"]
ImageSet = Literal["all", "annotated"]
Positive = Annotated[int, Field(ge=1)]


class QuantizationConfig(Section):
    """How the INT8 variant is calibrated: ``ssd-triton quantize``.

    What was measured (ranges, excluded layers) lies beside the weights, as ``NAME.calibration.json``.
    """

    method: CalibrationMethod = Field(default="percentile", description="method that chooses ranges of activations")
    weight_bits: WeightBits = Field(
        default=7,
        description="bits of quantised weights; 8 is finer, but overflows on CPUs without VNNI (AVX2) and costs more "
        "accuracy there than a bit",
    )
    num_images: int = Field(default=96, ge=1, le=100_000, description="number of training images to calibrate on")
    images: Path | None = Field(
        default=None, description="folder of training images, for calibration and sensitivity only"
    )
    evaluation_images: Path | None = Field(
        default=None, description="folder of COCO images to measure AP on; none of them may calibrate"
    )
    evaluation_annotations: Path | None = Field(
        default=None, description="COCO annotations (instances_*.json) of evaluation_images"
    )
    num_evaluation_images: Positive = Field(default=500, description="number of images on which AP is compared")
    max_ap_loss: Fraction = Field(default=0.005, description="largest loss of AP against FP32, 0 to 1")
    max_layer_error: float = Field(
        default=0.05,
        gt=0,
        description="relative L2 error of the raw outputs beyond which a layer stays in FP32, when it alone is INT8",
    )


class ProfileConfig(Section):
    """Batch sizes of an engine, in images."""

    min: Positive = Field(default=1, description="smallest batch")
    opt: Positive = Field(default=8, description="batch that the engine is tuned for")
    max: Positive = Field(default=64, description="largest batch: max_batch_size of the variant's configuration")


class TensorRTConfig(Section):
    """How ``ssd-triton engine`` builds."""

    runtime: RuntimeName = Field(
        default="tensorrt",
        description="library that builds; tensorrt-rtx can build for a GPU that this machine does not have",
    )
    profile: ProfileConfig = ProfileConfig()
    builder_optimization_level: int = Field(
        default=3, ge=0, le=5, description="effort of the builder: 0 builds fastest, 5 searches longest"
    )
    workspace_mib: Positive = Field(default=4096, description="most GPU memory for one layer")
    tf32: bool = Field(default=False, description="FP32 with 10 bits of mantissa instead of 23")
    timing_cache: Path | None = Field(
        default=Path("reports/timing.cache"),
        description="timing cache of TensorRT, which makes the next build faster; TensorRT-RTX has none",
    )


class ParityConfig(Section):
    """How far raw outputs may differ from PyTorch FP32, by precision: ``ssd-triton parity``."""

    fp32: float = Field(default=1e-4, gt=0, description="largest relative L2 error of FP32 variants")
    fp16: float = Field(default=5e-3, gt=0, description="largest relative L2 error of FP16 variants")


_PASCAL_VOC_NAMES = {
    "motorbike": "motorcycle",
    "aeroplane": "airplane",
    "sofa": "couch",
    "pottedplant": "potted plant",
    "diningtable": "dining table",
    "tvmonitor": "tv",
}
"""Names of PASCAL VOC for classes that COCO calls otherwise."""


class CocoConfig(Section):
    """COCO evaluation: ``ssd-triton coco-eval`` and ``ssd-triton compare-accuracy``."""

    coco_data_path: Path | None = Field(
        default=None, description="folder with val2017/ and annotations/instances_val2017.json"
    )
    output: Path = Field(default=Path("reports/coco_eval"), description="folder for answers and report")
    image_set: ImageSet = Field(
        default="all",
        description="images to evaluate; annotated: only images with annotations, as DeepLearningExamples evaluates",
    )
    limit: Positive | None = Field(
        default=None, description="number of images, spread evenly over the sorted ids; none: all of them"
    )
    in_flight: int = Field(default=8, ge=1, le=1024, description="requests in flight at once")
    batch: int = Field(default=1, ge=1, le=64, description="images in a request")
    retry_s: Seconds = Field(
        default=120, description="time for which a request is retried while the server is away; not with --serve"
    )
    worst_misses: int = Field(default=12, ge=0, le=1000, description="number of pictures in the report")
    name_map: dict[str, str] = Field(
        default=_PASCAL_VOC_NAMES, description="labels for class names that an annotation file spells differently"
    )
