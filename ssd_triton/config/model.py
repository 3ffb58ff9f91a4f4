"""The whole configuration, and its keys.

Relative paths mean one thing everywhere: in a file, they are relative to that file's folder; on a command line and in
``--set``, to the working folder. By default, what is read lies in the project's folder, and what is written goes to
``reports/`` of the working folder.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, get_args

from pydantic import Field
from pydantic.fields import FieldInfo

from ssd_triton.common.files import ROOT
from ssd_triton.config.artefacts import BackboneName, CocoConfig, ParityConfig, QuantizationConfig, TensorRTConfig
from ssd_triton.config.driving import BrakingConfig, CameraConfig, SimulationConfig, TrackingConfig
from ssd_triton.config.section import Section
from ssd_triton.config.serving import ClientConfig, ContainerConfig, DemoConfig, DetectConfig, ServerConfig, ViewConfig
from ssd_triton.config.training import LabelConfig, TrainingConfig


class Config(Section):
    """What is served, and the sections of everything else."""

    weights_path: Path = ROOT / "weights/ssd300_resnet50_demo.safetensors"
    """weights of the network, .safetensors or .pt; 'ssd-triton fetch-weights' downloads NVIDIA's"""
    backbone: BackboneName = "resnet50"
    """backbone of those weights"""
    labels_path: Path = ROOT / "model_repository/ssd_detector/labels.txt"
    """class names, one a line, background first"""
    model_repository: Path = ROOT / "model_repository"
    """folder of Triton's models"""
    variant: str = "onnx_int8"
    """variant of the detector: a name in model_repository/ssd_detector/configs/"""
    accuracy: dict[str, Annotated[float, Field(gt=0, le=1)]] = Field(default_factory=dict)
    """largest difference of AP from PyTorch FP32, 0 to 1, by variant, instead of the one of the table of variants:
    'ssd-triton compare-accuracy'"""
    quantization: QuantizationConfig = QuantizationConfig()
    tensorrt: TensorRTConfig = TensorRTConfig()
    parity: ParityConfig = ParityConfig()
    coco: CocoConfig = CocoConfig()
    server: ServerConfig = ServerConfig()
    container: ContainerConfig = ContainerConfig()
    client: ClientConfig = ClientConfig()
    detect: DetectConfig = DetectConfig()
    demo: DemoConfig = DemoConfig()
    view: ViewConfig = ViewConfig()
    camera: CameraConfig = CameraConfig()
    braking: BrakingConfig = BrakingConfig()
    tracking: TrackingConfig = TrackingConfig()
    training: TrainingConfig = TrainingConfig()
    label: LabelConfig = LabelConfig()
    simulation: SimulationConfig = SimulationConfig()


def section_of(field: FieldInfo) -> type[Section] | None:
    """The section that a field holds; None for a value."""
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, Section) else None


def fields(model: type[Section] = Config, prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every key, dotted, with its field: ``server.grpc_port``."""
    for name, field in model.model_fields.items():
        section = section_of(field)
        if section is None:
            yield f"{prefix}{name}", field
        else:
            yield from fields(section, f"{prefix}{name}.")


def value_of(config: Section, key: str) -> Any:
    """The value of a dotted key."""
    value: Any = config
    for name in key.split("."):
        value = getattr(value, name)
    return value


def takes_path(field: FieldInfo) -> bool:
    """Whether a field is a path, or may be one."""
    return Path in (field.annotation, *get_args(field.annotation))
