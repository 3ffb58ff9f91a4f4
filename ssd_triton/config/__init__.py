"""The configuration: every value that a user may want to change, with its default, its limits and its meaning.

Defaults and descriptions lie in the models of this package. What a user's file, ``--set`` and a command's flags change
of them is merged by :mod:`ssd_triton.config.layers`. What belongs to a served model (thresholds of the
post-processing, batching, pixel limits) lies in that model's ``config.pbtxt`` instead, where Triton reads it too.
"""

from __future__ import annotations

from ssd_triton.config.artefacts import CalibrationMethod, ImageSet, RuntimeName, TensorRTConfig, WeightBits
from ssd_triton.config.driving import (
    BrakesConfig,
    BrakingConfig,
    CameraConfig,
    DetectionNoiseConfig,
    EgoPitchConfig,
    ObjectSizeConfig,
    SimulationConfig,
    TrackingConfig,
)
from ssd_triton.config.layers import load_config
from ssd_triton.config.model import Config
from ssd_triton.config.serving import ClientTlsConfig, DemoConfig, ServerConfig, ServerTlsConfig, ViewConfig
from ssd_triton.config.training import AugmentationConfig, LabelConfig, LossConfig, OptimizerConfig, TrainingConfig

__all__ = [
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
    "LabelConfig",
    "LossConfig",
    "ObjectSizeConfig",
    "OptimizerConfig",
    "RuntimeName",
    "ServerConfig",
    "ServerTlsConfig",
    "SimulationConfig",
    "TensorRTConfig",
    "TrackingConfig",
    "TrainingConfig",
    "ViewConfig",
    "WeightBits",
    "load_config",
]
