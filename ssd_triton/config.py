"""``config.yml``, typed and checked.

Every value that a user may want to change lies there; what belongs to a served model (thresholds of the
post-processing, batching, pixel limits) lies in that model's ``config.pbtxt`` instead, where Triton reads it too.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ssd_triton.errors import ConfigError
from ssd_triton.files import relative_to_cwd

Port = Annotated[int, Field(ge=0, le=65535)]
Seconds = Annotated[float, Field(gt=0)]
Score = Annotated[float, Field(ge=0, le=1)]
BackboneName = Literal["resnet18", "resnet34", "resnet50", "resnet101", "resnet152"]
BACKBONE_NAMES: tuple[str, ...] = get_args(BackboneName)
CalibrationMethod = Literal["minmax", "percentile", "entropy"]
WeightBits = Literal[7, 8]
CALIBRATION_METHODS: tuple[CalibrationMethod, ...] = get_args(CalibrationMethod)

RuntimeName = Literal["tensorrt", "tensorrt-rtx"]
RUNTIME_NAMES: tuple[RuntimeName, ...] = get_args(RuntimeName)


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)


class ServerConfig(_Section):
    """Addresses and deadlines of the embedded server; port 0 takes a free one."""

    host: str
    grpc_port: Port
    http_port: Port
    metrics_port: Port
    startup_timeout_s: Seconds
    shutdown_timeout_s: Seconds


class ClientConfig(_Section):
    """How clients reach a server."""

    protocol: Literal["grpc", "http"]
    url: str | None
    timeout_s: Seconds
    in_flight: Annotated[int, Field(ge=1, le=1024)]


class DetectConfig(_Section):
    """Defaults of ``clients/detect.py``."""

    output: Path
    score_thresh: Score


class DemoConfig(_Section):
    """Defaults of ``clients/brake_demo.py``; a number as ``video`` is the index of a camera."""

    video: int | Path | None
    output: Path
    score_thresh: Score
    image_folder_fps: Annotated[float, Field(gt=0, le=1000)]


class CameraConfig(_Section):
    """A camera above a flat road, without roll."""

    horizontal_fov_deg: Annotated[float, Field(gt=0, lt=180)]
    height_m: Annotated[float, Field(gt=0, le=100)]
    pitch_deg: Annotated[float, Field(gt=-45, lt=45)]


class BrakingConfig(_Section):
    """When the demo warns and brakes."""

    ego_speed_kmh: Annotated[float, Field(ge=0, le=400)]
    reaction_time_s: Annotated[float, Field(ge=0, le=60)]
    deceleration_mps2: Annotated[float, Field(ge=0.1, le=50)]
    warning_lead_time_s: Annotated[float, Field(ge=0, le=60)]
    corridor_half_width_m: Annotated[float, Field(gt=0, le=50)]
    classes: tuple[str, ...]


class QuantizationConfig(_Section):
    """How the INT8 variant is calibrated (``tools/quantize_onnx.py``); AP is in [0, 1]."""

    method: CalibrationMethod
    weight_bits: WeightBits
    num_images: Annotated[int, Field(ge=1, le=100_000)]
    images: Path | None
    evaluation_images: Path | None
    evaluation_annotations: Path | None
    num_evaluation_images: Annotated[int, Field(ge=1)]
    max_ap_loss: Annotated[float, Field(ge=0, le=1)]


class ProfileConfig(_Section):
    """Images in a batch that an engine takes: fewest, the number it is tuned for, most."""

    min: Annotated[int, Field(ge=1)]
    opt: Annotated[int, Field(ge=1)]
    max: Annotated[int, Field(ge=1)]


class TensorRTConfig(_Section):
    """How ``tools/build_engine.py`` builds; the timing cache is for TensorRT only, TensorRT-RTX has none."""

    runtime: RuntimeName
    profile: ProfileConfig
    builder_optimization_level: Annotated[int, Field(ge=0, le=5)]
    workspace_mib: Annotated[int, Field(ge=1)]
    tf32: bool
    timing_cache: Path | None


class ParityConfig(_Section):
    """Relative L2 errors of raw outputs that ``tools/check_parity.py`` allows, by precision."""

    fp32: Annotated[float, Field(gt=0)]
    fp16: Annotated[float, Field(gt=0)]


class Config(_Section):
    """The whole of ``config.yml``; paths are absolute once loaded."""

    weights_path: Path
    backbone: BackboneName
    labels_path: Path
    model_repository: Path
    variant: str
    quantization: QuantizationConfig
    tensorrt: TensorRTConfig
    parity: ParityConfig
    server: ServerConfig
    client: ClientConfig
    detect: DetectConfig
    demo: DemoConfig
    camera: CameraConfig
    braking: BrakingConfig


def load_config(path: Path) -> Config:
    """Read and check a configuration file.

    Raises:
        ConfigError: The file is missing or no YAML, or a key is unknown, repeated, missing or out of range; the
            message names the file, the key and, for an unknown key, the nearest known one.
    """
    name = relative_to_cwd(path)
    try:
        # The loader below is a SafeLoader: it builds plain values only.
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=_UniqueKeyLoader)  # noqa: S506
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {name} ({error}); give another one with --config FILE") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{name} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{name}: got {type(values).__name__}, expected keys and values")
    try:
        config = Config.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{name}: " + "; ".join(_describe(problem) for problem in error.errors())) from None
    resolved: Config = _with_absolute_paths(config, path.resolve().parent)
    return resolved


class _UniqueKeyLoader(yaml.SafeLoader):
    """YAML without repeated keys, of which PyYAML would silently keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Refuse a repeated key, then build the mapping as usual."""
        seen: set[object] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=deep)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"repeated key '{key}'", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


def _describe(problem: Any) -> str:
    """One pydantic problem as 'key: what is wrong'."""
    location = [str(part) for part in problem["loc"]]
    key = ".".join(location)
    if problem["type"] != "extra_forbidden":
        got = "" if problem["type"] == "missing" else f", got {problem['input']!r}"
        return f"{key}: {problem['msg'][0].lower()}{problem['msg'][1:]}{got}"
    section: type[BaseModel] = Config
    for part in location[:-1]:
        annotation = section.model_fields[part].annotation
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return f"unknown key '{key}'"
        section = annotation
    nearest = difflib.get_close_matches(location[-1], section.model_fields, n=1, cutoff=0.5)
    hint = f"did you mean '{nearest[0]}'?" if nearest else f"known keys: {', '.join(section.model_fields)}"
    return f"unknown key '{key}': {hint}"


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
