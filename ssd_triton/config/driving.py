"""The camera, what is made of detections, and the simulated world that this is tried in."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from ssd_triton.config.section import Score, Seconds, Section


class CameraConfig(Section):
    """A camera above a flat road, without roll: a camera file, or the keys after it, which count without one."""

    file: Path | None
    horizontal_fov_deg: Annotated[float, Field(gt=0, lt=180)]
    height_m: Annotated[float, Field(gt=0, le=100)]
    pitch_deg: Annotated[float, Field(gt=-45, lt=45)]
    yaw_deg: Annotated[float, Field(gt=-45, lt=45)]


class BrakingConfig(Section):
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


class ObjectSizeConfig(Section):
    """Usual size of a class, in metres, and by what part of it heights and widths differ (standard deviations)."""

    height_m: Annotated[float, Field(gt=0, le=20)]
    width_m: Annotated[float, Field(gt=0, le=20)]
    length_m: Annotated[float, Field(gt=0, le=50)]
    overhang_m: Annotated[float, Field(ge=0, le=20)]
    height_spread: Annotated[float, Field(gt=0, lt=1)]
    width_spread: Annotated[float, Field(gt=0, lt=1)]


class TrackingConfig(Section):
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


class EgoConfig(Section):
    """Outer size of the ego, in metres."""

    length_m: Annotated[float, Field(gt=0, le=20)]
    width_m: Annotated[float, Field(gt=0, le=5)]


class BrakesConfig(Section):
    """How the ego's brakes follow a demand."""

    dead_time_s: Annotated[float, Field(ge=0, le=10)]
    build_up_s: Annotated[float, Field(gt=0, le=10)]
    max_deceleration_mps2: Annotated[float, Field(gt=0, le=20)]


class EgoPitchConfig(Section):
    """How the ego pitches on its springs when it brakes."""

    deg_per_mps2: Annotated[float, Field(ge=0, le=5)]
    frequency_hz: Annotated[float, Field(gt=0, le=20)]
    damping: Annotated[float, Field(ge=0, le=2)]


class DetectionNoiseConfig(Section):
    """Errors of simulated detections; ``config.yml`` says what each key means."""

    box_px: Annotated[float, Field(ge=0, le=100)]
    miss_rate: Annotated[float, Field(ge=0, le=1)]
    min_visible_share: Annotated[float, Field(ge=0, le=1)]
    min_height_px: Annotated[float, Field(ge=0)]


class WorldConfig(Section):
    """The simulated world (:mod:`ssd_triton.simulation`)."""

    step_s: Annotated[float, Field(gt=0, le=0.1)]
    ego: EgoConfig
    brakes: BrakesConfig
    pitch: EgoPitchConfig
    noise: DetectionNoiseConfig
