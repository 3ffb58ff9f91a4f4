"""``config.yml``, typed and checked.

Every value that a user may want to change lies there; what belongs to a served model (thresholds of the
post-processing, batching, pixel limits) lies in that model's ``config.pbtxt`` instead, where Triton reads it too.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field

from ssd_triton.common.errors import ConfigError
from ssd_triton.common.files import fill_root
from ssd_triton.common.yaml_file import read_yaml
from ssd_triton.config.artefacts import (
    BACKBONE_NAMES,
    CALIBRATION_METHODS,
    IMAGE_SETS,
    RUNTIME_NAMES,
    BackboneName,
    CalibrationMethod,
    CocoConfig,
    ImageSet,
    ParityConfig,
    QuantizationConfig,
    RuntimeName,
    TensorRTConfig,
    WeightBits,
)
from ssd_triton.config.driving import (
    BrakesConfig,
    BrakingConfig,
    CameraConfig,
    DetectionNoiseConfig,
    EgoPitchConfig,
    ObjectSizeConfig,
    TrackingConfig,
    WorldConfig,
)
from ssd_triton.config.section import Section
from ssd_triton.config.serving import (
    ClientConfig,
    ClientTlsConfig,
    ContainerConfig,
    DemoConfig,
    DetectConfig,
    ServerConfig,
    ServerTlsConfig,
)
from ssd_triton.config.training import (
    AugmentationConfig,
    LossConfig,
    OptimizerConfig,
    TrainingConfig,
)

__all__ = [
    "BACKBONE_NAMES",
    "CALIBRATION_METHODS",
    "IMAGE_SETS",
    "RUNTIME_NAMES",
    "AugmentationConfig",
    "BrakesConfig",
    "BrakingConfig",
    "CalibrationMethod",
    "CameraConfig",
    "ClientTlsConfig",
    "Config",
    "DemoConfig",
    "DetectionNoiseConfig",
    "EgoPitchConfig",
    "ImageSet",
    "LossConfig",
    "ObjectSizeConfig",
    "OptimizerConfig",
    "RuntimeName",
    "ServerConfig",
    "ServerTlsConfig",
    "TensorRTConfig",
    "TrackingConfig",
    "TrainingConfig",
    "WeightBits",
    "WorldConfig",
    "load_config",
]


class Config(Section):
    """The whole of ``config.yml``; paths are absolute once loaded."""

    weights_path: Path
    backbone: BackboneName
    labels_path: Path
    model_repository: Path
    variant: str
    quantization: QuantizationConfig
    tensorrt: TensorRTConfig
    parity: ParityConfig
    coco: CocoConfig
    accuracy: dict[str, Annotated[float, Field(gt=0, le=1)]]
    server: ServerConfig
    container: ContainerConfig
    client: ClientConfig
    detect: DetectConfig
    demo: DemoConfig
    camera: CameraConfig
    braking: BrakingConfig
    tracking: TrackingConfig
    world: WorldConfig
    training: TrainingConfig


def load_config(path: Path) -> Config:
    """Read and check a configuration file.

    Raises:
        ConfigError: The file is missing or no YAML, or a key is unknown, repeated, missing or out of range; the
            message names the file, the key and, for an unknown key, the nearest known one.
    """
    fill_root()
    config = read_yaml(path, Config, error_type=ConfigError, next_step="give another one with --config FILE")
    resolved: Config = _with_absolute_paths(config, path.resolve().parent)
    return resolved


def _with_absolute_paths(section: Any, base: Path) -> Any:
    """Resolve every path of a section, and of the sections in it, against the configuration file's folder."""
    resolved: dict[str, object] = {}
    for name in type(section).model_fields:
        value = getattr(section, name)
        if isinstance(value, BaseModel):
            resolved[name] = _with_absolute_paths(value, base)
        elif isinstance(value, Path):
            resolved[name] = base / value
    return section.model_copy(update=resolved)
