"""``config.yml``, typed and checked.

Every value that a user may want to change lies there; what belongs to a served model (thresholds of the
post-processing, batching, pixel limits) lies in that model's ``config.pbtxt`` instead, where Triton reads it too.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ssd_triton.errors import ConfigError
from ssd_triton.yaml_file import read_yaml

Port = Annotated[int, Field(ge=0, le=65535)]
Seconds = Annotated[float, Field(gt=0)]
Score = Annotated[float, Field(ge=0, le=1)]
BackboneName = Literal["resnet18", "resnet34", "resnet50", "resnet101", "resnet152"]
BACKBONE_NAMES: tuple[str, ...] = get_args(BackboneName)
CalibrationMethod = Literal["minmax", "percentile", "entropy"]
WeightBits = Literal[7, 8]
CALIBRATION_METHODS: tuple[CalibrationMethod, ...] = get_args(CalibrationMethod)

ImageSet = Literal["all", "annotated"]
IMAGE_SETS: tuple[ImageSet, ...] = get_args(ImageSet)

X264Preset = Literal["ultrafast", "superfast", "veryfast", "faster", "fast", "medium"]

RestrictedApi = Literal[
    "metadata", "shared-memory", "model-config", "model-repository", "statistics", "trace", "logging"
]
"""Triton's names of what may be put behind a key; health and inference stay free."""

RuntimeName = Literal["tensorrt", "tensorrt-rtx"]
RUNTIME_NAMES: tuple[RuntimeName, ...] = get_args(RuntimeName)


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)


class ServerTlsConfig(_Section):
    """PEM files of the gRPC endpoint; without a certificate it speaks plain text."""

    certificate: Path | None
    private_key: Path | None
    client_ca: Path | None

    @model_validator(mode="after")
    def _complete(self) -> ServerTlsConfig:
        if (self.certificate is None) != (self.private_key is None):
            raise ValueError("certificate and private_key belong together, got one of them")
        if self.client_ca is not None and self.certificate is None:
            raise ValueError("client_ca needs certificate and private_key")
        return self


class ServerConfig(_Section):
    """Addresses, deadlines and protection of the embedded server; port 0 takes a free one."""

    host: str
    grpc_port: Port
    http_port: Port
    metrics_port: Port
    startup_timeout_s: Seconds
    shutdown_timeout_s: Seconds
    cuda_memory_pool_mib: Annotated[int, Field(ge=0)]
    model_control: bool
    admin_key_file: Path | None
    restricted_apis: tuple[RestrictedApi, ...]
    tls: ServerTlsConfig

    @model_validator(mode="after")
    def _controlled(self) -> ServerConfig:
        if self.model_control and (self.admin_key_file is None or "model-repository" not in self.restricted_apis):
            raise ValueError(
                "model_control lets callers run code of theirs: expected an admin_key_file ('openssl rand -hex 32 > "
                "admin.key' makes one), and model-repository among restricted_apis"
            )
        return self

    def for_one_run(self) -> ServerConfig:
        """The same for a server that one command starts for itself: on free ports of loopback, without TLS."""
        no_tls = ServerTlsConfig(certificate=None, private_key=None, client_ca=None)
        ports = {"grpc_port": 0, "http_port": 0, "metrics_port": 0}
        return self.model_copy(update={"host": "127.0.0.1", **ports, "model_control": False, "tls": no_tls})


class ClientTlsConfig(_Section):
    """How clients trust a server, and show who they are; PEM files."""

    enabled: bool
    root_certificates: Path | None
    certificate: Path | None
    private_key: Path | None


class ContainerConfig(_Section):
    """How ``tools/container_entrypoint.py`` starts; ``config.yml`` says what each key means."""

    variant: str
    engine_cache: Path
    runtime_dir: Path
    builder_timeout_s: Seconds


class ClientConfig(_Section):
    """How clients reach a server."""

    protocol: Literal["grpc", "http"]
    url: str | None
    timeout_s: Seconds
    in_flight: Annotated[int, Field(ge=1, le=1024)]
    tls: ClientTlsConfig


class DetectConfig(_Section):
    """Defaults of ``clients/detect.py``."""

    output: Path
    score_thresh: Score


class DemoConfig(_Section):
    """Defaults of ``clients/brake_demo.py``; ``config.yml`` says what each key means.

    A number as ``video`` is the index of a camera.
    """

    video: int | Path | None
    output: Path
    score_thresh: Score
    image_folder_fps: Annotated[float, Field(gt=0, le=1000)]
    real_time_in_flight: Annotated[int, Field(ge=1, le=1024)]
    max_age_s: Seconds
    server_deadline_s: Seconds
    assumed_latency_s: Annotated[float, Field(ge=0, le=60)]
    max_ego_gap_s: Seconds
    view_range_m: Annotated[float, Field(ge=10, le=200)]
    x264_preset: X264Preset


class CameraConfig(_Section):
    """A camera above a flat road, without roll: a camera file, or the keys after it, which count without one."""

    file: Path | None
    horizontal_fov_deg: Annotated[float, Field(gt=0, lt=180)]
    height_m: Annotated[float, Field(gt=0, le=100)]
    pitch_deg: Annotated[float, Field(gt=-45, lt=45)]
    yaw_deg: Annotated[float, Field(gt=-45, lt=45)]


class BrakingConfig(_Section):
    """When to warn and to brake; ``config.yml`` says what each key means."""

    ego_speed_kmh: Annotated[float, Field(ge=0, le=400)]
    classes: tuple[str, ...]
    corridor_half_width_m: Annotated[float, Field(gt=0, le=50)]
    front_overhang_m: Annotated[float, Field(ge=0, le=20)]
    deceleration_mps2: Annotated[float, Field(ge=0.1, le=50)]
    reaction_time_s: Annotated[float, Field(ge=0, le=60)]
    warning_lead_time_s: Annotated[float, Field(ge=0, le=60)]
    warning_time_s: Annotated[float, Field(ge=0, le=60)]
    urgent_ratio: Annotated[float, Field(ge=1, le=10)]
    braking_ratio: Annotated[float, Field(gt=0, le=1)]
    ttc_brake_s: Annotated[float, Field(ge=0, le=60)]
    confirm_frames: Annotated[int, Field(ge=1, le=1000)]
    confirm_time_s: Annotated[float, Field(ge=0, le=60)]
    hold_time_s: Annotated[float, Field(ge=0, le=60)]
    release_ratio: Annotated[float, Field(gt=0, le=1)]


class ObjectSizeConfig(_Section):
    """Usual size of a class, in metres, and by what part of it heights and widths differ (standard deviations)."""

    height_m: Annotated[float, Field(gt=0, le=20)]
    width_m: Annotated[float, Field(gt=0, le=20)]
    length_m: Annotated[float, Field(gt=0, le=50)]
    overhang_m: Annotated[float, Field(ge=0, le=20)]
    height_spread: Annotated[float, Field(gt=0, lt=1)]
    width_spread: Annotated[float, Field(gt=0, lt=1)]


class TrackingConfig(_Section):
    """How detections become tracks with ranges and speeds; ``config.yml`` says what each key means."""

    high_score_thresh: Score
    low_score_thresh: Score
    match_iou_thresh: Score
    duplicate_iou_thresh: Score
    confirm_hits: Annotated[int, Field(ge=1, le=1000)]
    max_coast_s: Seconds
    max_gap_s: Seconds
    box_noise_px: Annotated[float, Field(gt=0, le=1000)]
    box_noise_relative: Annotated[float, Field(ge=0, lt=1)]
    border_fraction: Annotated[float, Field(ge=0, lt=0.5)]
    pitch_std_deg: Annotated[float, Field(gt=0, le=45)]
    pitch_time_constant_s: Seconds
    acceleration_std_mps2: Annotated[float, Field(gt=0, le=50)]
    acceleration_time_constant_s: Seconds
    speed_drift_mps: Annotated[float, Field(gt=0, le=50)]
    lateral_acceleration_std_mps2: Annotated[float, Field(gt=0, le=50)]
    object_sizes: dict[str, ObjectSizeConfig]

    def with_box_noise(self, px: float, relative: float) -> TrackingConfig:
        """The same for a detector of another noise, such as ground truth with a known one."""
        return self.model_copy(update={"box_noise_px": px, "box_noise_relative": relative})


class EgoConfig(_Section):
    """Outer size of the ego, in metres."""

    length_m: Annotated[float, Field(gt=0, le=20)]
    width_m: Annotated[float, Field(gt=0, le=5)]


class BrakesConfig(_Section):
    """How the ego's brakes follow a demand."""

    dead_time_s: Annotated[float, Field(ge=0, le=10)]
    build_up_s: Annotated[float, Field(gt=0, le=10)]
    max_deceleration_mps2: Annotated[float, Field(gt=0, le=20)]


class EgoPitchConfig(_Section):
    """How the ego pitches on its springs when it brakes."""

    deg_per_mps2: Annotated[float, Field(ge=0, le=5)]
    frequency_hz: Annotated[float, Field(gt=0, le=20)]
    damping: Annotated[float, Field(ge=0, le=2)]


class DetectionNoiseConfig(_Section):
    """Errors of simulated detections; ``config.yml`` says what each key means."""

    box_px: Annotated[float, Field(ge=0, le=100)]
    miss_rate: Annotated[float, Field(ge=0, le=1)]
    min_visible_share: Annotated[float, Field(ge=0, le=1)]
    min_height_px: Annotated[float, Field(ge=0)]


class WorldConfig(_Section):
    """The simulated world (:mod:`ssd_triton.world`)."""

    step_s: Annotated[float, Field(gt=0, le=0.1)]
    ego: EgoConfig
    brakes: BrakesConfig
    pitch: EgoPitchConfig
    noise: DetectionNoiseConfig


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


class CocoConfig(_Section):
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


class OptimizerConfig(_Section):
    """AdamW, its learning rates, and how the network's weights are averaged."""

    backbone_lr: Annotated[float, Field(gt=0, le=1)]
    head_lr: Annotated[float, Field(gt=0, le=1)]
    weight_decay: Annotated[float, Field(ge=0, le=1)]
    warmup_steps: Annotated[int, Field(ge=0)]
    clip_norm: Annotated[float, Field(gt=0)]
    ema_decay: Annotated[float, Field(ge=0, lt=1)]
    ema_warmup: bool


class LossConfig(_Section):
    """Which default boxes count, and how sure the network is to become."""

    fallback_default_boxes: Annotated[int, Field(ge=1, le=100)]
    negatives_per_positive: Annotated[int, Field(ge=1, le=100)]
    min_negatives: Annotated[int, Field(ge=0, le=8732)]
    label_smoothing: Annotated[float, Field(ge=0, lt=1)]
    teacher_weight: Annotated[float, Field(gt=0, le=100)]


class AugmentationConfig(_Section):
    """How much training images are changed; ``config.yml`` says what each key means."""

    mosaic_fraction: Score
    zoom_in_fraction: Score
    zoom_in_min_side: Annotated[float, Field(gt=0, le=1)]
    zoom_out_fraction: Score
    zoom_out_max_ratio: Annotated[float, Field(ge=1, le=10)]
    flip_fraction: Score
    min_visible: Score
    min_side_px: Annotated[float, Field(ge=0, le=300)]
    brightness: Annotated[float, Field(ge=0, le=1)]
    contrast: Annotated[float, Field(ge=0, le=1)]
    saturation: Annotated[float, Field(ge=0, le=1)]
    hue_deg: Annotated[float, Field(ge=0, le=180)]
    grey_fraction: Score
    noise: Annotated[float, Field(ge=0, le=1)]
    erase_fraction: Score
    erase_max_side: Score


class SamplingConfig(_Section):
    """Which images are drawn more often."""

    rare_frequency: Score
    often: dict[str, Annotated[float, Field(gt=0, le=100)]]


class TrainingConfig(_Section):
    """How ``tools/train.py`` trains; ``config.yml`` says what each key means."""

    output: Path
    steps: Annotated[int, Field(ge=1)]
    batch: Annotated[int, Field(ge=2, le=4096)]
    seed: Annotated[int, Field(ge=0, le=2**32 - 1)]
    source_px: Annotated[int, Field(ge=300, le=2048)]
    deterministic: bool
    frozen_stages: Annotated[int, Field(ge=0, le=4)]
    dropout: Annotated[float, Field(ge=0, lt=1)]
    batch_norm_momentum: Annotated[float, Field(gt=0, le=1)]
    frozen_batch_norms: bool
    log_every: Annotated[int, Field(ge=1)]
    validate_every: Annotated[int, Field(ge=1)]
    optimizer: OptimizerConfig
    loss: LossConfig
    sampling: SamplingConfig
    augmentation: AugmentationConfig


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
