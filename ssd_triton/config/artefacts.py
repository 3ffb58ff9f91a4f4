"""From weights to what is served: quantisation, engines, and how accurate they must be."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from ssd_triton.config.section import Fraction, Section

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

    method: CalibrationMethod = "percentile"
    """method that chooses ranges of activations"""
    weight_bits: WeightBits = 7
    """bits of quantised weights; 8 is finer, but overflows on CPUs without VNNI (AVX2) and costs more accuracy there
    than a bit"""
    num_images: int = Field(default=96, ge=1, le=100_000)
    """number of training images to calibrate on"""
    images: Path | None = None
    """folder of training images, for calibration and sensitivity only"""
    evaluation_images: Path | None = None
    """folder of COCO images to measure AP on; none of them may calibrate"""
    evaluation_annotations: Path | None = None
    """COCO annotations (instances_*.json) of evaluation_images"""
    num_evaluation_images: Positive = 500
    """number of images on which AP is compared"""
    max_ap_loss: Fraction = 0.005
    """largest loss of AP against FP32, 0 to 1"""
    max_layer_error: float = Field(default=0.05, gt=0)
    """relative L2 error of the raw outputs beyond which a layer stays in FP32, when it alone is INT8"""


class ProfileConfig(Section):
    """Batch sizes of an engine, in images."""

    min: Positive = 1
    """smallest batch"""
    opt: Positive = 8
    """batch that the engine is tuned for"""
    max: Positive = 64
    """largest batch: max_batch_size of the variant's configuration"""


class TensorRTConfig(Section):
    """How ``ssd-triton engine`` builds."""

    runtime: RuntimeName = "tensorrt"
    """library that builds; tensorrt-rtx can build for a GPU that this machine does not have"""
    profile: ProfileConfig = ProfileConfig()
    builder_optimization_level: int = Field(default=3, ge=0, le=5)
    """effort of the builder: 0 builds fastest, 5 searches longest"""
    workspace_mib: Positive = 4096
    """most GPU memory for one layer"""
    tf32: bool = False
    """FP32 with 10 bits of mantissa instead of 23"""
    timing_cache: Path | None = Path("reports/timing.cache")
    """timing cache of TensorRT, which makes the next build faster; TensorRT-RTX has none"""


class ParityConfig(Section):
    """How far raw outputs may differ from PyTorch FP32, by precision: ``ssd-triton parity``."""

    fp32: float = Field(default=1e-4, gt=0)
    """largest relative L2 error of FP32 variants"""
    fp16: float = Field(default=5e-3, gt=0)
    """largest relative L2 error of FP16 variants"""


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

    coco_data_path: Path | None = None
    """folder with val2017/ and annotations/instances_val2017.json"""
    output: Path = Path("reports/coco_eval")
    """folder for answers and report"""
    image_set: ImageSet = "all"
    """images to evaluate; annotated: only images with annotations, as DeepLearningExamples evaluates"""
    limit: Positive | None = None
    """number of images, spread evenly over the sorted ids; none: all of them"""
    in_flight: int = Field(default=8, ge=1, le=1024)
    """requests in flight at once"""
    batch: int = Field(default=1, ge=1, le=64)
    """images in a request"""
    worst_misses: int = Field(default=12, ge=0, le=1000)
    """number of pictures in the report"""
    name_map: dict[str, str] = _PASCAL_VOC_NAMES
    """labels for class names that an annotation file spells differently"""
